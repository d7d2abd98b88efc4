//! Files of a node's state: for root alone, replaced as a whole, and believed only while they are whole.
//!
//! [`private`] makes and closes directories and files; [`regular`] reads them, and nothing else that lies under their
//! names; [`stamp`] gives a JSON record the version of its form;
//! [`seal`] gives it a checksum for its time on a disk. What a record means is its owner's business. All of it
//! blocks.

mod private;
mod regular;
mod seal;
mod stamp;

pub use private::{Durability, close_tree, make_dir, new_file, replace};
pub use regular::{NotAFile, length, open_file, open_or_make, open_to_write, read, read_optional, read_text};
pub use seal::{SEALED, open, seal};
pub use stamp::{decode, encode};

/// A record cannot be read. It is never taken for one that is not there.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is of version {found}, and this program knows versions up to {known}")]
    Newer { found: u32, known: u32 },
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// What is wrong with a damaged record.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error(transparent)]
    Form(#[from] serde_json::Error),
    #[error("its checksum does not match")]
    Checksum,
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.into())
    }
}
