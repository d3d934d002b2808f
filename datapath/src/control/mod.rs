//! The control side: a person's or a program's wishes, checked and carried out.
pub mod client;
pub mod protocol;
