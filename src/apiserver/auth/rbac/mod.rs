//! Role-based access control: the rules of the stored roles, granted by the stored bindings.
//!
//! The policy is compiled once per object and kept current from the watch cache: before a question is
//! answered, whatever changed since the last one is taken in, so that a binding holds from the moment
//! at which its write was acknowledged.

pub mod escalation;
mod index;
mod policy;
mod rule;

pub use index::Index;
pub use policy::Policy;
pub use rule::Rule;
