//! The modules themselves, in the plainest possible director.

mod equal;
mod misdeeds;
mod plain;
mod specification;
