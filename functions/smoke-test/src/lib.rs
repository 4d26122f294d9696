//! Asks every task of a candidate, by its private address, what the settings say that it must answer.
//!
//! Through the load balancer this would prove nothing: the active version may answer, a login may stand before the rules,
//! and the domain may not lead there yet. So what the load balancer adds is added here, and that its rules lead to the
//! candidate is read from it first.
//!
//! An answer that is wrong is a verdict. No answer is not, because a task may just be replaced: the state machine asks
//! again a few times.

mod answer;

use futures_util::future::join_all;
use hyper::header::HeaderValue;
use lifecycle::affinity::Affinity;
use lifecycle::printable::{MAX_TEXT, first_of, printable};
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError, defaults, routing, variables};
use serde::{Deserialize, Serialize};
use task_requests::running_tasks::{self, RunningTask};

use answer::Answer;

/// The candidate and what it has to answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group, to which its rules have to lead.
    pub target_group_arn: String,
    /// What every task has to answer.
    pub smoke: Vec<Test>,
}

/// A request, and what its right answer is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// The path that is asked with GET.
    pub path: String,
    /// The status of the right answer.
    pub status: u16,
    /// A text that the right answer contains.
    #[serde(default)]
    pub contains: Option<String>,
}

/// Whether every task answered right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Every task answered every test right.
    Passed,
    /// One answer was wrong.
    Failed,
}

/// What the tasks answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether every task answered right.
    pub verdict: Verdict,
    /// How many answers were right, or which one was wrong and how.
    pub reason: String,
}

/// What the function knows of its environment, read once at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The baseline's resources.
    pub baseline: Baseline,
    /// The name under which visitors reach the application, which the requests have as their host.
    pub domain: HeaderValue,
}

impl Config {
    /// Reads it through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        let domain = variables::required(&variable, "DOMAIN_NAME")?;
        Ok(Config {
            baseline: Baseline::read(&variable)?,
            domain: HeaderValue::from_str(&domain).map_err(|_| {
                StepError::new(
                    ErrorName::Configuration,
                    format!(
                        "the function's environment variable DOMAIN_NAME is `{domain}`, which no request can have as \
                         its host; correct the parameter DomainName of the pipeline's stack"
                    ),
                )
            })?,
        })
    }
}

/// The clients that the step asks with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the tasks' addresses.
    pub ecs: aws_sdk_ecs::Client,
    /// For the rules.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the tasks themselves.
    pub http: task_requests::Client,
}

/// Asks every running task every test, until an answer is wrong.
///
/// # Errors
/// `Transient` when a rule does not lead to the deployment, when no task runs, and when a task does not answer;
/// else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(clients: &Clients, config: &Config, input: Input) -> Result<Output, StepError> {
    check_rules(clients, &config.baseline, &input).await?;
    let id = &input.deployment_id;
    let tasks = running_tasks::list(&clients.ecs, &config.baseline, id).await?;
    if tasks.is_empty() {
        let why = format!("ECS lists no running task of {id}, so none can answer its smoke tests");
        return Err(StepError::new(ErrorName::Transient, why));
    }
    let mut asked = Asked::default();
    let asking = ask(clients, config, &tasks, &input.smoke, &mut asked);
    let is_over = tokio::time::timeout(defaults::SMOKE_TESTS_END_AFTER, asking).await;
    asked.judge(id, tasks.len() * input.smoke.len(), is_over.is_ok())
}

/// Refuses to ask tasks that visitors who name the deployment would not reach.
async fn check_rules(
    clients: &Clients,
    baseline: &Baseline,
    input: &Input,
) -> Result<(), StepError> {
    let (id, group) = (&input.deployment_id, &input.target_group_arn);
    let rules = routing::rules(&clients.elb, &baseline.listener_arn).await?;
    for affinity in Affinity::PINS {
        let mut own = rules.iter().filter(|it| affinity.is_condition_of(it, id));
        if !own.any(|rule| routing::forwarded_to(rule.actions()) == [group.as_str()]) {
            return Err(StepError::new(
                ErrorName::Transient,
                format!(
                    "no {affinity} rule of listener {} leads requests for {id} to its target group {group} alone, so \
                     that no request reaches it by its name; start the deployment again, and leave its rules as they are",
                    baseline.listener_arn
                ),
            ));
        }
    }
    Ok(())
}

/// Asks some tasks at a time, test by test, until an answer is wrong.
async fn ask(
    clients: &Clients,
    config: &Config,
    tasks: &[RunningTask],
    tests: &[Test],
    asked: &mut Asked,
) {
    let of_test = |test| tasks.iter().map(move |task| (test, task));
    let requests: Vec<_> = tests.iter().flat_map(of_test).collect();
    for some in requests.chunks(defaults::TASKS_ASKED_AT_ONCE) {
        let answers = some
            .iter()
            .map(|(test, task)| answer::to(&clients.http, &config.domain, task, test));
        for ((test, task), answer) in some.iter().zip(join_all(answers).await) {
            let of_task = format!("GET {} of task {}", test.path, task.id);
            match answer {
                Answer::Right => asked.right += 1,
                Answer::Wrong(how) => asked.wrong.push(format!("{of_task} {how}")),
                Answer::None(why) => asked.silent.push(format!("{of_task}: {why}")),
            }
        }
        if !asked.wrong.is_empty() {
            break;
        }
    }
}

/// How many requests without an answer the reason names.
const MAX_NAMED: usize = 5;

/// The answers so far.
#[derive(Default)]
struct Asked {
    right: usize,
    wrong: Vec<String>,
    silent: Vec<String>,
}

impl Asked {
    fn judge(self, id: &DeploymentId, all: usize, is_over: bool) -> Result<Output, StepError> {
        let Asked {
            right,
            wrong,
            silent,
        } = self;
        if let Some(first) = wrong.first() {
            let more = match wrong.len() - 1 {
                0 => String::new(),
                more => format!("; {more} more answers were wrong"),
            };
            return Ok(Output {
                verdict: Verdict::Failed,
                reason: printable(&format!("{first}{more}"), MAX_TEXT),
            });
        }
        if !silent.is_empty() {
            let named = first_of(silent.iter().map(String::as_str), MAX_NAMED);
            let number = silent.len();
            let why = format!("{number} of {all} smoke tests of {id} had no answer: {named}");
            return Err(StepError::new(ErrorName::Transient, why));
        }
        if !is_over {
            let why = format!(
                "the tasks of {id} had answered {right} of {all} smoke tests after {:?}; name fewer tests, or such that \
                 are answered sooner",
                defaults::SMOKE_TESTS_END_AFTER
            );
            return Err(StepError::new(ErrorName::Transient, why));
        }
        Ok(Output {
            verdict: Verdict::Passed,
            reason: format!("{right} of {all} smoke tests were answered right"),
        })
    }
}

#[cfg(test)]
mod tests;
