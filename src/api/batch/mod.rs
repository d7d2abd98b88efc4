//! The batch group, one kind per file.

pub(crate) mod cron_job;
pub mod cron_schedule;
pub(crate) mod job;
mod job_policies;
pub mod time_zone;
