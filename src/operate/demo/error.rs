//! Why there is no demo.

use std::io;

use crate::operate::lab::cluster::ClusterError;
use crate::operate::lab::hosts::LabError;
use crate::operate::lab::sandbox::SandboxError;

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Nothing to make highly available.
    #[error("no redis-server is installed; on Debian and Ubuntu: apt-get install redis-server")]
    NoRedis,
    /// No private world.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No network.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The terminal, or whoever reads the output, failed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}
