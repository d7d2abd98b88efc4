//! The store against a model, against power cuts, and under many writers.

mod crash;
mod damage;
mod fixtures;
mod limit;
mod model;
mod rings;
mod room;
mod salvage;
mod writers;
