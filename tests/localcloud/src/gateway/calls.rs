//! A record of every AWS call that passed the gateway.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many calls are kept; older ones are forgotten.
const KEPT: usize = 20_000;

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Counts the calls from 1.
    pub number: u64,
    /// The service as signatures name it.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// The ARN of the caller, as far as the service checks it; empty for registry requests.
    pub caller: String,
    /// The function that called, if one did.
    pub function: Option<String>,
    /// The status of the answer; absent if the connection was dropped instead.
    pub status: Option<u16>,
    /// The fault that was injected, if any.
    pub fault: Option<String>,
}

/// The record. Clones share it.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    count: u64,
    calls: VecDeque<Call>,
}

impl Calls {
    /// All calls that are kept, oldest first.
    pub fn all(&self) -> Vec<Call> {
        self.since(0)
    }

    /// The calls with a greater number than `number`, oldest first.
    pub fn since(&self, number: u64) -> Vec<Call> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // They are in order, and whoever waits for a call asks often.
        let known = inner.calls.partition_point(|call| call.number <= number);
        inner.calls.range(known..).cloned().collect()
    }

    /// How many calls of an operation passed.
    pub fn count(&self, service: &str, operation: &str) -> usize {
        self.all()
            .iter()
            .filter(|call| call.service == service && call.operation == operation)
            .count()
    }

    /// The number of the newest call; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Adds a call; its number is filled in here.
    pub(super) fn record(&self, call: Call) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.count += 1;
        let number = inner.count;
        inner.calls.push_back(Call { number, ..call });
        if inner.calls.len() > KEPT {
            inner.calls.pop_front();
        }
    }
}
