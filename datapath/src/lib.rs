//! The director: the small program that feeds the engine.
pub mod config;
pub mod control;
pub mod ipvsadm;
pub mod kernel;
