//! The machine of the peer link.
#[derive(Debug)]
pub struct Cluster;
#[derive(Debug)]
pub struct Config;
#[derive(Debug)]
pub struct Event;
#[derive(Debug)]
pub struct Input;
#[derive(Debug)]
pub struct Output;
#[derive(Debug)]
pub struct Peer;
