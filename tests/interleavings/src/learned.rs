//! What a function does after each sequence of answers, learned by running the real code.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use delete_deployment::{Clients, Verdict};
use lifecycle::defaults::SWITCH_IN_FLIGHT;
use lifecycle::{Settings, StepError};
use switch_traffic::Outcome;
use time::Duration;

use crate::call::{Answer, Call, Deployment, NOW, group_arn, id};

/// One call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invocation {
    /// `switch-traffic`.
    Switch {
        /// For which deployment.
        deployment: Deployment,
        /// What it leaves, as bits, if it is a rollback to it.
        roll_back: Option<u8>,
    },
    /// `delete-deployment`.
    Delete {
        /// Which deployment.
        deployment: Deployment,
        /// Whether it is the undo of a candidate.
        only_if_never_live: bool,
    },
}

/// How a function ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the functions' own words")]
pub enum Ending {
    Switched,
    Superseded,
    Unhealthy,
    Deleted,
    Deleting,
    /// With the error of that name.
    Failed(&'static str),
}

impl From<StepError> for Ending {
    fn from(error: StepError) -> Ending {
        Ending::Failed(error.name.as_str())
    }
}

/// What runs when a function is called.
pub type Code = Box<dyn Fn(Invocation, Clients) -> Run>;
/// A function that runs.
pub type Run = Pin<Box<dyn Future<Output = Ending>>>;

/// The functions as they are shipped.
pub fn shipped() -> Code {
    Box::new(|invocation, clients| Box::pin(run(invocation, clients)))
}

async fn run(invocation: Invocation, clients: Clients) -> Ending {
    let settings = Settings::for_tests();
    match invocation {
        Invocation::Switch {
            deployment,
            roll_back,
        } => {
            let input = switch_traffic::Input {
                deployment_id: id(deployment),
                target_group_arn: group_arn(deployment),
                roll_back: roll_back.is_some(),
                leaves: roll_back.map(|left| {
                    let deployments = (0..8).filter(|deployment| left & (1 << deployment) != 0);
                    deployments.map(id).collect()
                }),
            };
            match switch_traffic::run(&clients.elb, &settings, NOW, input).await {
                Ok(output) => match output.outcome {
                    Outcome::Switched => Ending::Switched,
                    Outcome::Superseded => Ending::Superseded,
                    Outcome::Unhealthy => Ending::Unhealthy,
                },
                Err(error) => error.into(),
            }
        }
        Invocation::Delete {
            deployment,
            only_if_never_live,
        } => {
            let input = delete_deployment::Input {
                deployment_id: id(deployment),
                only_if_never_live,
                only_if_draining: false,
                force: false,
            };
            // The time of this world stands still, and marks are of `NOW`. A deletion that meets its own
            // mark is past its wait for switches in flight, which the exploration does instead.
            let now = NOW + SWITCH_IN_FLIGHT;
            let settings = delete_deployment::Settings {
                baseline: settings,
                settle: Duration::ZERO,
            };
            match delete_deployment::run(&clients, &settings, now, input).await {
                Ok(output) => match output.verdict {
                    Verdict::Deleted => Ending::Deleted,
                    Verdict::Deleting => Ending::Deleting,
                },
                Err(error) => error.into(),
            }
        }
    }
}

/// What a function does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It makes this call.
    Calls(Call),
    /// It has ended.
    Ends(Ending),
}

/// A point in the run of a function: which one it is, and every answer that it got so far.
pub type Point = usize;

struct Known {
    next: Next,
    before: Option<(Point, Answer)>,
    invocation: Invocation,
    after: HashMap<Answer, Point>,
    /// The run itself, as long as no answer was given to it: it can only go one way.
    parked: Option<Parked>,
    /// Holds tags that it may still act on.
    acts_on_tags: bool,
    /// Was told of a failure of AWS.
    met_a_failure: bool,
}

/// All points that were reached so far.
pub struct Learned {
    code: Code,
    known: Vec<Known>,
    beginnings: HashMap<Invocation, Point>,
    /// How many calls the code has made to learn this.
    pub calls: usize,
}

impl Learned {
    /// Nothing is known of that code yet.
    pub fn new(code: Code) -> Learned {
        Learned {
            code,
            known: Vec::new(),
            beginnings: HashMap::new(),
            calls: 0,
        }
    }

    /// How many points are known.
    pub fn points(&self) -> usize {
        self.known.len()
    }

    /// What comes next.
    pub fn next(&self, point: Point) -> &Next {
        &self.known[point].next
    }

    /// Whether the run holds tags that it has not acted on yet: it may switch by them.
    pub fn acts_on_tags(&self, point: Point) -> bool {
        self.known[point].acts_on_tags
    }

    /// Whether the run was told of a failure of AWS.
    pub fn met_a_failure(&self, point: Point) -> bool {
        self.known[point].met_a_failure
    }

    /// Where a call of a function begins.
    pub fn begin(&mut self, invocation: Invocation) -> Point {
        if let Some(point) = self.beginnings.get(&invocation) {
            return *point;
        }
        let (parked, next) = self.start(invocation);
        let point = self.remember(Known {
            next,
            before: None,
            invocation,
            after: HashMap::new(),
            parked: Some(parked),
            acts_on_tags: false,
            met_a_failure: false,
        });
        self.beginnings.insert(invocation, point);
        point
    }

    /// Where the run is after its call was answered so.
    pub fn after(&mut self, point: Point, answer: &Answer) -> Point {
        if let Some(after) = self.known[point].after.get(answer) {
            return *after;
        }
        let mut parked = match self.known[point].parked.take() {
            Some(parked) => parked,
            None => self.again(point),
        };
        let Next::Calls(call) = self.known[point].next.clone() else {
            panic!("an answer to a run that has ended");
        };
        let next = parked.go_on(&call, answer);
        self.calls += 1;
        let known = &self.known[point];
        let acts_on_tags = match call {
            Call::DescribeTags(_) => true,
            Call::ModifyListener(_) => false,
            _ => known.acts_on_tags,
        };
        let (invocation, met) = (known.invocation, known.met_a_failure);
        let after = self.remember(Known {
            next,
            before: Some((point, answer.clone())),
            invocation,
            after: HashMap::new(),
            parked: Some(parked),
            acts_on_tags,
            met_a_failure: met
                || matches!(answer, Answer::Error("InternalFailure" | "AccessDenied")),
        });
        self.known[point].after.insert(answer.clone(), after);
        after
    }

    fn remember(&mut self, known: Known) -> Point {
        self.known.push(known);
        self.known.len() - 1
    }

    fn start(&self, invocation: Invocation) -> (Parked, Next) {
        let wire = Wire::default();
        let mut parked = Parked {
            run: (self.code)(invocation, wire.clients()),
            wire,
        };
        let next = parked.poll();
        (parked, next)
    }

    /// The run up to that point once more.
    fn again(&mut self, point: Point) -> Parked {
        let mut path = Vec::new();
        let mut at = point;
        while let Some((before, answer)) = self.known[at].before.clone() {
            path.push((before, answer));
            at = before;
        }
        let (mut parked, mut next) = self.start(self.known[point].invocation);
        for (before, answer) in path.into_iter().rev() {
            assert_eq!(next, self.known[before].next, "the code is deterministic");
            let Next::Calls(call) = next else {
                panic!("a run that has ended goes on");
            };
            next = parked.go_on(&call, &answer);
            self.calls += 1;
        }
        parked
    }
}

/// A run that waits for an answer.
struct Parked {
    run: Run,
    wire: Wire,
}

impl Parked {
    fn go_on(&mut self, call: &Call, answer: &Answer) -> Next {
        self.wire
            .with(|held| held.answer = Some(answer.write(call)));
        self.poll()
    }

    fn poll(&mut self) -> Next {
        match self
            .run
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(ending) => Next::Ends(ending),
            Poll::Pending => Next::Calls(
                self.wire
                    .with(|held| held.call.take())
                    .expect("only calls are waited for"),
            ),
        }
    }
}

/// What is between a run and the cloud.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    call: Option<Call>,
    answer: Option<(u16, String)>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn with<T>(&self, f: impl FnOnce(&mut Held) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn clients(&self) -> Clients {
        let connector = SharedHttpConnector::new(self.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        // Time and chance would make a run differ from the same run once more.
        macro_rules! client {
            ($sdk:ident) => {
                $sdk::Client::from_conf(
                    $sdk::Config::builder()
                        .behavior_version($sdk::config::BehaviorVersion::latest())
                        .region($sdk::config::Region::new("us-east-1"))
                        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
                        .identity_cache($sdk::config::IdentityCache::no_cache())
                        .retry_config($sdk::config::retry::RetryConfig::disabled())
                        .timeout_config($sdk::config::timeout::TimeoutConfig::disabled())
                        .stalled_stream_protection(
                            $sdk::config::StalledStreamProtectionConfig::disabled(),
                        )
                        .http_client(http.clone())
                        .build(),
                )
            };
        }
        Clients {
            ecs: client!(aws_sdk_ecs),
            elb: client!(aws_sdk_elasticloadbalancingv2),
        }
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        wire.with(|held| held.call = Some(Call::read(&request)));
        HttpConnectorFuture::new(std::future::poll_fn(move |_| {
            match wire.with(|held| held.answer.take()) {
                None => Poll::Pending,
                Some((status, body)) => {
                    let status = StatusCode::try_from(status).expect("a status");
                    Poll::Ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
                }
            }
        }))
    }
}
