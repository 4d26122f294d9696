//! A record of every AWS call that reached the gateway.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many calls are kept. Older ones are dropped.
const KEPT: usize = 20_000;

/// A call of an AWS operation or of the image registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The position among all calls, from 1.
    pub number: u64,
    /// The service as signatures name it, for example `ecs` or `elasticloadbalancing`.
    pub service: String,
    /// The name of the operation, or method and path where the service has no names.
    pub operation: String,
    /// The ARN of the caller. Empty for registry requests, which have no credentials.
    pub caller: String,
    /// The name of the function that called. Absent for other callers.
    pub function: Option<String>,
    /// The HTTP status of the answer. Absent if the connection was closed without one.
    pub status: Option<u16>,
    /// The injected fault in its `Debug` form, if there was one.
    pub fault: Option<String>,
}

/// The record of calls. Clones share one record.
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

    /// The calls after the one with number `number`, oldest first.
    pub fn since(&self, number: u64) -> Vec<Call> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The calls are in order, and a test that waits for a call does this often.
        let known = inner.calls.partition_point(|call| call.number <= number);
        inner.calls.range(known..).cloned().collect()
    }

    /// How many calls of an operation are in the record.
    pub fn count(&self, service: &str, operation: &str) -> usize {
        self.all()
            .iter()
            .filter(|call| call.service == service && call.operation == operation)
            .count()
    }

    /// The number of the newest call, or 0 before the first one.
    pub fn newest(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Adds a call and sets its number.
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
