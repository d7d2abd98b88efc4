//! From a container's configuration to the OCI specification that libcontainer runs.

pub(crate) mod capabilities;
mod environment;
pub(crate) mod mounts;
pub(crate) mod spec;
pub(crate) mod user;
