//! The scheduler: gives each pending pod the node that fits it best.
//!
//! One task owns the queue and the cache and decides one pod at a time in a pure cycle (filter,
//! score, else preempt); binding goes on beside it, with the pod assumed on its node meanwhile.
//! Plugins are upstream's default set, one file each. Nothing is polled: pods that fit nowhere wait
//! for a change that can help them.

mod cache;
mod cycle;
mod framework;
mod node_info;
mod plugins;
mod pod_info;
mod preemption;
mod queue;
mod resources;
mod run;
mod terms;

#[cfg(test)]
mod fixtures;

pub use run::run;
