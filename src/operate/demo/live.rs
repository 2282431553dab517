use super::DemoError;
use crate::operate::lab::sandbox::Sandbox;
use std::path::Path;
pub(super) fn run(_: &Sandbox, _: &Path) -> Result<u8, DemoError> {
    Ok(0)
}
