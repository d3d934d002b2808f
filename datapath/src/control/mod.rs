//! The control side: a person's or a program's wishes, checked and carried out.
//!
//! ```text
//! protocol    what is asked and answered            client    the tools' end
//! socket      the director's end                    book      the rules in force
//! network     ways and next hops, from the kernel   vips      addresses of our own
//! workers     mail to the workers                   report    what is told of them
//! estimate    rates                                 controller   all of it together
//! ```

pub mod book;
pub mod client;
pub mod controller;
pub mod estimate;
pub mod network;
pub mod protocol;
pub mod report;
pub mod socket;
pub mod vips;
pub mod workers;
