//! The storage.k8s.io group, one kind per file.

pub(crate) mod csi_driver;
pub(crate) mod storage_class;
