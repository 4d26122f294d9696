//! Everything that the stacks, the state machines and the functions do together, on the local cloud.
//!
//! One binary, so that it is linked once and tests of different files run side by side.
//! `tests/README.md` shows how to run one of them.

mod any_fault;
mod at_scale;
mod baseline_update;
mod before_the_switch;
mod cleanup;
mod deploy;
mod drain;
mod environments;
mod events;
mod evict;
mod existing_network;
mod failures;
mod freeze;
mod input;
mod limits;
mod races;
mod release;
mod roles;
mod rollback;
mod scaling;
mod security;
mod settings;
mod survival;
mod watch;
mod zero_downtime;
