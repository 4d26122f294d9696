//! One AWS in memory, behind the SDK's real clients, for the unit tests of the steps.
//!
//! [`MemoryAws::config`] gives an SDK configuration whose HTTP client answers from a [`State`]. The
//! requests and answers are those of the wire, so the SDK's serializers, parsers and error types are
//! part of what is tested. Every call is recorded, and a test can make AWS misbehave with
//! [`MemoryAws::on`].

mod autoscaling;
mod cbor;
mod cloudwatch;
mod ecs;
mod elb;
mod other;
mod sockets;
mod state;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_config::identity::IdentityCache;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use serde_json::Value;
use time::UtcDateTime;

pub use aws_config::retry::RetryConfig;
pub use sockets::socket_of_a_task;
pub use state::*;
pub use wire::{Call, Error, GATEWAY_TIMEOUT};

/// An SDK configuration for clients that send their calls to this connector.
pub fn config(connector: impl HttpConnector + 'static, retries: RetryConfig) -> SdkConfig {
    let connector = SharedHttpConnector::new(connector);
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "id", "secret", None, None, "test",
        )))
        // No call depends on the time or on an earlier call.
        .identity_cache(IdentityCache::no_cache())
        .timeout_config(TimeoutConfig::disabled())
        .retry_config(retries)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .build()
}

type Change = Box<dyn FnMut(&mut State, &Call) + Send>;

/// An account with one environment, `test`, in it. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryAws(Arc<Mutex<Account>>);

#[derive(Default)]
struct Account {
    state: State,
    calls: Vec<Call>,
    injections: Vec<Injection>,
}

/// What a test does to certain calls.
struct Injection {
    operation: &'static str,
    contains: String,
    /// The first and the last of the calls that are affected, counted from 1.
    calls: (usize, usize),
    seen: usize,
    effect: Effect,
}

enum Effect {
    Fail(Error),
    LoseAnswer(Error),
    Before(Change),
    After(Change),
    Stale(Box<State>),
}

impl fmt::Debug for MemoryAws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryAws").field(&self.changes()).finish()
    }
}

impl MemoryAws {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An SDK configuration for clients that make each call once.
    pub fn config(&self) -> SdkConfig {
        self.config_with(RetryConfig::disabled())
    }

    /// An SDK configuration for clients that repeat a call, as those of the functions do.
    pub fn config_with(&self, retries: RetryConfig) -> SdkConfig {
        config(self.clone(), retries)
    }

    /// Reads the state, or changes it as another program would.
    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.account().state)
    }

    /// The time of the account, to steer the clock of a step.
    ///
    /// # Panics
    /// When a test has set it to a time that does not exist.
    pub fn time(&self) -> UtcDateTime {
        let now = self.with(|state| state.now);
        UtcDateTime::from_unix_timestamp(now).expect("a time")
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.account().calls.clone()
    }

    /// The parameters of all calls of an operation, in order.
    pub fn calls_to(&self, operation: &str) -> Vec<Value> {
        let calls = self.calls().into_iter();
        let matching = calls.filter(|call| call.operation == operation);
        matching.map(|call| call.params).collect()
    }

    /// How often an operation was called.
    pub fn count(&self, operation: &str) -> usize {
        self.calls_to(operation).len()
    }

    /// All calls that are not reads, each in one line such as `AddTags test-… pulse:ready-at`.
    pub fn changes(&self) -> Vec<String> {
        let calls = self.calls().into_iter();
        calls
            .filter(Call::is_change)
            .map(|c| c.to_string())
            .collect()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.account().calls.clear();
    }

    /// Begins to describe what happens at every call of an operation.
    pub fn on(&self, operation: &'static str) -> On<'_> {
        On {
            aws: self,
            operation,
            contains: String::new(),
            calls: (1, usize::MAX),
        }
    }

    fn answer(&self, call: &Call) -> Result<Value, Error> {
        let account = &mut *self.account();
        account.calls.push(call.clone());
        let mut applied: Vec<&mut Effect> = Vec::new();
        for injection in &mut account.injections {
            if injection.operation == call.operation
                && (injection.contains.is_empty()
                    || call.params.to_string().contains(&injection.contains))
            {
                injection.seen += 1;
                let (first, last) = injection.calls;
                if (first..=last).contains(&injection.seen) {
                    applied.push(&mut injection.effect);
                }
            }
        }
        let state = &mut account.state;
        for effect in &mut applied {
            if let Effect::Before(change) = effect {
                change(state, call);
            }
        }
        let mut answer = None;
        for effect in &mut applied {
            match effect {
                Effect::Fail(error) => answer = Some(Err(error.clone())),
                Effect::Stale(stale) => answer = Some(stale.answer(call)),
                _ => (),
            }
        }
        let mut answer = answer.unwrap_or_else(|| state.answer(call));
        for effect in &mut applied {
            match effect {
                Effect::After(change) => change(state, call),
                Effect::LoseAnswer(error) => answer = Err(error.clone()),
                _ => (),
            }
        }
        answer
    }
}

impl HttpConnector for MemoryAws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = Call::read(&request);
        HttpConnectorFuture::ready(Ok(call.write(&self.answer(&call))))
    }
}

/// Selects calls of an operation, and then what happens at them.
#[must_use]
pub struct On<'a> {
    aws: &'a MemoryAws,
    operation: &'static str,
    contains: String,
    calls: (usize, usize),
}

impl On<'_> {
    /// Only calls whose parameters, as JSON, contain this text.
    pub fn containing(mut self, text: &str) -> Self {
        self.contains = text.to_owned();
        self
    }

    /// Only the next of these calls.
    pub fn once(self) -> Self {
        self.nth(1)
    }

    /// Only the n-th of these calls from now on, counted from 1.
    pub fn nth(mut self, n: usize) -> Self {
        self.calls = (n, n);
        self
    }

    /// They change nothing and fail with this code.
    pub fn fails(self, code: &str) {
        self.fails_with(code, "refused by the test");
    }

    /// They change nothing and fail with this code and this message.
    pub fn fails_with(self, code: &str, message: &str) {
        self.inject(Effect::Fail(Error::new(code, message)));
    }

    /// They take effect, and fail with this code all the same.
    pub fn loses_the_answer(self, code: &str) {
        self.inject(Effect::LoseAnswer(Error::new(code, "lost by the test")));
    }

    /// Another program does this right before them.
    pub fn before(self, change: impl FnMut(&mut State, &Call) + Send + 'static) {
        self.inject(Effect::Before(Box::new(change)));
    }

    /// Another program does this right after them.
    pub fn after(self, change: impl FnMut(&mut State, &Call) + Send + 'static) {
        self.inject(Effect::After(Box::new(change)));
    }

    /// They are reads that show this state, which is older than the true one.
    pub fn shows(self, state: State) {
        self.inject(Effect::Stale(Box::new(state)));
    }

    fn inject(self, effect: Effect) {
        self.aws.account().injections.push(Injection {
            operation: self.operation,
            contains: self.contains,
            calls: self.calls,
            seen: 0,
            effect,
        });
    }
}
