//! The vault page in Chromium, against the real server: every flow by clicks and by keys, in both
//! languages, with answers that are lost on the way. Leaves screenshots in `target/tmp`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod parity;
mod proxy;
mod stories;
mod visit;
mod world;
