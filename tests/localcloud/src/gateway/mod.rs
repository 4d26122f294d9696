//! The gateway: the single address that AWS clients, functions and registry clients call. It passes
//! calls on to MiniStack and adds the AWS rules that MiniStack lacks.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming as IncomingBody, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

mod answer;
pub(crate) mod autoscaling;
mod caller;
pub mod calls;
pub mod ecr;
pub(crate) mod ecs;
pub mod elbv2;
pub mod faults;
pub(crate) mod forward;
mod operation;

use answer::Answer;
use autoscaling::Autoscaling;
use caller::Environment;
use calls::{Call, Calls};
use ecr::Ecr;
use elbv2::Elbv2;
use faults::{Fault, Faults};
use forward::Forward;
use operation::{Operation, Protocol};

/// The limit on the size of a request, such as an image layer or the zip file of a function, in bytes.
const BODY_LIMIT: usize = 512 * 1024 * 1024;

/// The limits on the answers that are kept for stale reads, in bytes: of all together, and of each.
const ANSWERS_KEPT: usize = 8 * 1024 * 1024;
const ANSWER_KEPT_LIMIT: usize = 256 * 1024;

/// A request that was read to its end.
pub(crate) struct Incoming {
    /// Method, path and headers, unchanged.
    pub parts: Parts,
    pub body: Bytes,
    pub operation: Operation,
    /// Whether the caller waits for the answer.
    pub waiting: Waiting,
    caller: OnceLock<String>,
}

/// Whether the caller of a request waits for the answer. It is cleared when the connection is closed.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    /// Whether the caller has closed the connection.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Ends the waiting when it is dropped, as it is with the connection.
struct EndsWaiting(Waiting);

impl Drop for EndsWaiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::SeqCst);
    }
}

impl Incoming {
    /// Reads from the request which operation it calls.
    pub fn new(parts: Parts, body: Bytes) -> Self {
        let operation = Operation::of(&parts, &body);
        Self {
            parts,
            body,
            operation,
            waiting: Waiting::default(),
            caller: OnceLock::new(),
        }
    }
}

/// What the gateway passes calls to.
pub(crate) struct Services {
    pub forward: Forward,
    pub elbv2: Elbv2,
    pub ecr: Ecr,
    pub ecs: crate::ecs::Ecs,
    pub autoscaling: Autoscaling,
}

pub(crate) struct Gateway {
    state: Arc<State>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

struct State {
    services: Services,
    calls: Calls,
    faults: Faults,
    answers: Mutex<Answers>,
}

/// Answers to calls that only read, with the size of all together.
#[derive(Default)]
struct Answers {
    kept: HashMap<(String, String, Bytes), Answer>,
    bytes: usize,
}

/// The connection is closed without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by an injected fault")
    }
}

impl std::error::Error for Dropped {}

impl Gateway {
    /// Serves on a bound listener. It is bound by the caller because MiniStack needs the address before
    /// it starts.
    ///
    /// # Errors
    /// If the listener has no local address.
    pub fn serve(listener: TcpListener, services: Services) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            services,
            calls: Calls::default(),
            faults: Faults::default(),
            answers: Mutex::default(),
        });
        let server = tokio::spawn(accept(listener, state.clone()));
        Ok(Self {
            state,
            address,
            server,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn calls(&self) -> &Calls {
        &self.state.calls
    }

    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    pub fn ecr(&self) -> &Ecr {
        &self.state.services.ecr
    }

    pub fn elbv2(&self) -> &Elbv2 {
        &self.state.services.elbv2
    }

    /// Stops serving and closes all connections.
    pub async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropping the set aborts the connections, so they end with the server.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, state.clone()));
                }
                // Most likely the process has no file descriptors left. Others are closed soon.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| state.clone().respond(request));
    // An error means that the client disconnected, or that a fault closes the connection.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl State {
    async fn respond(
        self: Arc<Self>,
        request: Request<IncomingBody>,
    ) -> Result<Response<Full<Bytes>>, Dropped> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
            return Err(Dropped);
        };
        let body = body.to_bytes();
        let incoming = Incoming::new(parts, body);
        let _until_the_end = EndsWaiting(incoming.waiting.clone());
        // A call that has begun runs to its end even if the caller disconnects, as on AWS.
        let call = tokio::spawn(self.call(incoming));
        match call.await {
            Ok(Some(answer)) => Ok(answer.map(Full::new)),
            _ => Err(Dropped),
        }
    }

    /// Answers a call, with the fault that hits it, and records it. `None` closes the connection.
    async fn call(self: Arc<Self>, mut incoming: Incoming) -> Option<Answer> {
        let environment = Environment::of(&incoming.parts);
        let function = environment.as_ref().map(|it| it.function.as_str());
        let fault = self.faults.fault_for(&incoming.operation, function);
        let kill = async || {
            if let Some(environment) = &environment {
                // An error means that MiniStack has ended, and its functions with it.
                let _ = self.services.forward.client.kill(environment).await;
            }
        };
        let answer = match fault {
            None => Some(self.answer(&incoming).await),
            Some(Fault::ConnectionReset) => None,
            Some(Fault::AnswerLost) => {
                self.answer(&incoming).await;
                None
            }
            Some(Fault::KilledBeforeCall) => {
                kill().await;
                None
            }
            Some(Fault::KilledAfterCall) => {
                self.answer(&incoming).await;
                kill().await;
                None
            }
            Some(Fault::Slow { milliseconds }) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                // It takes effect late, even if its caller has given up meanwhile.
                incoming.waiting = Waiting::default();
                Some(self.answer(&incoming).await)
            }
            Some(Fault::StaleRead) => Some(match self.earlier_answer(&incoming) {
                Some(answer) => answer,
                None => self.answer(&incoming).await,
            }),
            Some(fault) => fault
                .error(&incoming.operation)
                .map(|error| error.answer(incoming.operation.protocol)),
        };
        let Operation { service, name, .. } = incoming.operation;
        let call = Call {
            number: 0,
            service,
            operation: name,
            caller: incoming.caller.into_inner().unwrap_or_default(),
            function: function.map(str::to_owned),
            status: answer.as_ref().map(|answer| answer.status().as_u16()),
            fault: fault.map(|fault| format!("{fault:?}")),
        };
        self.calls.record(call);
        answer
    }

    async fn answer(&self, incoming: &Incoming) -> Answer {
        let Services {
            forward,
            elbv2,
            ecr,
            ecs,
            autoscaling,
        } = &self.services;
        let operation = &incoming.operation;
        let answer = match (operation.service.as_str(), operation.protocol) {
            ("elasticloadbalancing", Protocol::Query) => elbv2.answer(forward, incoming).await,
            ("ecr", Protocol::Registry) => ecr.registry(forward, incoming).await,
            ("ecr", Protocol::Json) => ecr.answer(forward, incoming).await,
            ("ecs", Protocol::Json) => ecs::answer(ecs, autoscaling, forward, incoming).await,
            ("application-autoscaling", Protocol::Json) => {
                autoscaling.answer(forward, incoming).await
            }
            ("cloudformation", _) => {
                let answer = forward.forward(incoming).await;
                elbv2.refresh_soon();
                answer
            }
            _ => forward.forward(incoming).await,
        };
        self.keep(incoming, &answer);
        answer
    }

    fn earlier_answer(&self, incoming: &Incoming) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.kept.get(&answer_key(incoming)).cloned()
    }

    fn keep(&self, incoming: &Incoming, answer: &Answer) {
        if !incoming.operation.reads() || answer.body().len() > ANSWER_KEPT_LIMIT {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.bytes >= ANSWERS_KEPT {
            *answers = Answers::default();
        }
        answers.bytes += incoming.body.len() + answer.body().len();
        answers.kept.insert(answer_key(incoming), answer.clone());
    }
}

fn answer_key(incoming: &Incoming) -> (String, String, Bytes) {
    let Operation { service, name, .. } = &incoming.operation;
    (service.clone(), name.clone(), incoming.body.clone())
}
