//! An environment on a local cloud, and what tests do with it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_elasticloadbalancingv2::types::Action;
use futures_util::future::try_join_all;
use localcloud::gateway::calls::Call;
use localcloud::gateway::ecr::PushEvent;
use localcloud::load_balancer::LoadBalancer;
use localcloud::{LocalCloud, Options, image};
use time::UtcDateTime;
use time::macros::format_description;
use tokio::sync::OnceCell;

use crate::machines::BY_HAND;
use crate::visitors::Pin;
use crate::{Execution, Visitor};

/// An environment, deployed on a local cloud and ready for pushes.
pub struct TestEnvironment {
    /// The local cloud that the environment runs on.
    pub cloud: Arc<LocalCloud>,
    /// The environment's name, `test` for the first one of a local cloud.
    pub name: String,
    /// The data plane of the environment's load balancer.
    pub load_balancer: Arc<LoadBalancer>,
    /// A client for ECS with an administrator's permissions.
    pub ecs: aws_sdk_ecs::Client,
    /// A client for Elastic Load Balancing with an administrator's permissions.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// A client for Step Functions with an administrator's permissions.
    pub sfn: aws_sdk_sfn::Client,
    cleanups_by_hand: bool,
    next_id: AtomicI64,
}

/// Environment variables in a test image, by name and value.
pub type Variables<'a> = &'a [(&'a str, &'a str)];

impl TestEnvironment {
    /// Starts a local cloud on free ports and deploys the environment `test`.
    ///
    /// # Errors
    /// When a part of the local cloud does not start, or a stack fails.
    pub async fn deploy() -> anyhow::Result<TestEnvironment> {
        Self::deploy_with(Options::default()).await
    }

    /// As [`TestEnvironment::deploy`], with options for the local cloud.
    ///
    /// # Errors
    /// As [`TestEnvironment::deploy`].
    pub async fn deploy_with(options: Options) -> anyhow::Result<TestEnvironment> {
        Self::deploy_as(options, &[]).await
    }

    /// As [`TestEnvironment::deploy`], with parameters for the pipeline's stack, as `Name=value` pairs.
    ///
    /// # Errors
    /// As [`TestEnvironment::deploy`].
    pub async fn deploy_with_parameters(parameters: &str) -> anyhow::Result<TestEnvironment> {
        Self::deploy_as(Options::default(), &[("PIPELINE_PARAMETERS", parameters)]).await
    }

    /// As [`TestEnvironment::deploy_with`], with variables for the deploy script.
    ///
    /// # Errors
    /// As [`TestEnvironment::deploy`].
    pub async fn deploy_as(
        options: Options,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<TestEnvironment> {
        let cloud = Self::cloud(options).await?;
        Self::deploy_on(cloud, "test", variables).await
    }

    /// Starts a local cloud in which nothing is deployed yet.
    ///
    /// # Errors
    /// When a part of the local cloud does not start.
    pub async fn prepare(options: Options) -> anyhow::Result<TestEnvironment> {
        let cloud = Self::cloud(options).await?;
        let load_balancer = cloud.load_balancer().clone();
        Ok(Self::of(cloud, "test", load_balancer, false).await)
    }

    /// Deploys a further environment with this name on the same local cloud, with variables for the deploy script.
    ///
    /// # Errors
    /// When a stack fails.
    pub async fn beside(
        &self,
        name: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<TestEnvironment> {
        Self::deploy_on(self.cloud.clone(), name, variables).await
    }

    async fn cloud(options: Options) -> anyhow::Result<Arc<LocalCloud>> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Arc::new(LocalCloud::start(options).await?))
    }

    async fn deploy_on(
        cloud: Arc<LocalCloud>,
        name: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<TestEnvironment> {
        cloud.deploy_with(name, &without_watch(variables)).await?;
        let load_balancer = cloud.load_balancer_of(name).await?;
        let by_hand = variables.iter().any(|(_, it)| it.contains(BY_HAND));
        Ok(Self::of(cloud, name, load_balancer, by_hand).await)
    }

    async fn of(
        cloud: Arc<LocalCloud>,
        name: &str,
        load_balancer: Arc<LoadBalancer>,
        cleanups_by_hand: bool,
    ) -> TestEnvironment {
        let config = administrator(&cloud.endpoint_url()).await;
        TestEnvironment {
            ecs: aws_sdk_ecs::Client::new(&config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            sfn: aws_sdk_sfn::Client::new(&config),
            next_id: AtomicI64::new(UtcDateTime::now().unix_timestamp()),
            load_balancer,
            name: name.to_owned(),
            cloud,
            cleanups_by_hand,
        }
    }

    /// A deployment id that is newer than all ids before it.
    pub fn new_id(&self) -> String {
        let second = self.next_id.fetch_add(1, Ordering::SeqCst);
        let time = UtcDateTime::from_unix_timestamp(second).expect("a time of this century");
        let format = format_description!("[year][month][day]-[hour][minute][second]Z");
        format!(
            "{}-{}",
            self.name,
            time.format(&format).expect("a format of digits")
        )
    }

    /// Pushes the sample application with the id as its tag. The push event starts the deployment.
    ///
    /// # Errors
    /// When the image cannot be packed, or the registry refuses it.
    pub async fn push(&self, id: &str, variables: Variables<'_>) -> anyhow::Result<String> {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let image = image::pack(application().await?, &image::Config::of_program(&variables))?;
        image::push(&self.cloud.registry(), &self.name, id, &image).await
    }

    /// Pushes and waits for the end of the execution.
    ///
    /// # Errors
    /// As [`TestEnvironment::push`] and [`TestEnvironment::wait_for_deployment`].
    pub async fn push_and_wait(&self, variables: Variables<'_>) -> anyhow::Result<Execution> {
        let id = self.new_id();
        self.push(&id, variables).await?;
        self.wait_for_deployment(&id).await
    }

    /// The ARN of a state machine of the environment, such as `deploy`.
    pub fn machine(&self, name: &str) -> String {
        format!(
            "arn:aws:states:us-east-1:000000000000:stateMachine:{}-{name}",
            self.name
        )
    }

    /// Starts an execution of the deploy machine as from the console, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started, or does not end.
    pub async fn start_by_hand(&self, name: &str, input: &str) -> anyhow::Result<Execution> {
        self.sfn
            .start_execution()
            .state_machine_arn(self.machine("deploy"))
            .name(name)
            .input(input)
            .send()
            .await?;
        self.wait_for_deployment(name).await
    }

    /// Runs the AWS CLI as an operator does in a terminal; returns what it prints.
    ///
    /// # Errors
    /// When it fails; the message is its own.
    pub async fn aws(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.cloud.command("aws")?.args(arguments).output().await?;
        ensure!(
            output.status.success(),
            "aws {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `infra/destroy.sh` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn destroy(&self, variables: &[(&str, &str)]) -> anyhow::Result<Output> {
        let mut script = self.cloud.command("infra/destroy.sh")?;
        script
            .env("ENV", &self.name)
            .envs(variables.iter().copied());
        Ok(script.stdin(Stdio::null()).output().await?)
    }

    /// Removes the environment with its images.
    ///
    /// # Errors
    /// When the script fails, with what it said.
    pub async fn destroy_with_images(&self) -> anyhow::Result<()> {
        let confirmed = [("CONFIRM", self.name.as_str()), ("DELETE_IMAGES", "1")];
        let ended = self.destroy(&confirmed).await?;
        ensure!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        Ok(())
    }

    /// Waits for the end of the deploy execution called `name`.
    ///
    /// # Errors
    /// When it does not start within a minute, and as [`TestEnvironment::wait_for_execution`].
    pub async fn wait_for_deployment(&self, name: &str) -> anyhow::Result<Execution> {
        let arn = self.execution_arn(name);
        let started = self.wait_until(Duration::from_secs(60), async || {
            let described = self.sfn.describe_execution().execution_arn(&arn).send();
            Ok(described.await.is_ok())
        });
        started
            .await
            .with_context(|| format!("execution {name} never started"))?;
        self.wait_for_execution(&arn).await
    }

    /// The ARN of a deploy execution.
    pub fn execution_arn(&self, name: &str) -> String {
        self.machine("deploy")
            .replace(":stateMachine:", ":execution:")
            + ":"
            + name
    }

    /// Polls `condition` every 200 ms until it holds.
    ///
    /// # Errors
    /// When it does not hold within `limit`, or fails itself.
    pub async fn wait_until(
        &self,
        limit: Duration,
        condition: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + limit;
        while !condition().await? {
            ensure!(tokio::time::Instant::now() < end, "not within {limit:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// The HTTPS listener's ARN.
    ///
    /// # Errors
    /// When the listener does not exist.
    pub async fn listener_arn(&self) -> anyhow::Result<String> {
        let balancers = self
            .elb
            .describe_load_balancers()
            .names(format!("{}-alb", self.name))
            .send()
            .await?;
        let balancer = balancers
            .load_balancers()
            .first()
            .context("no load balancer")?;
        let listeners = self
            .elb
            .describe_listeners()
            .load_balancer_arn(balancer.load_balancer_arn().unwrap_or_default())
            .send()
            .await?;
        let https = listeners
            .listeners()
            .iter()
            .find(|listener| listener.port() == Some(443));
        Ok(https
            .and_then(|listener| listener.listener_arn())
            .context("no HTTPS listener")?
            .to_owned())
    }

    /// The default actions of the HTTPS listener.
    ///
    /// # Errors
    /// When the listener cannot be read.
    pub async fn default_actions(&self) -> anyhow::Result<Vec<Action>> {
        let listeners = self
            .elb
            .describe_listeners()
            .listener_arns(self.listener_arn().await?)
            .send()
            .await?;
        let listener = listeners.listeners().first().context("no listener")?;
        Ok(listener.default_actions().to_vec())
    }

    /// The active deployment: the first one that the default action names.
    ///
    /// # Errors
    /// When the listener cannot be read.
    pub async fn active(&self) -> anyhow::Result<Option<String>> {
        let actions = self.default_actions().await?;
        let named = actions.iter().filter_map(|action| {
            let config = action
                .forward_config()
                .and_then(|config| config.target_groups().first());
            action
                .target_group_arn()
                .or(config.and_then(|group| group.target_group_arn()))
        });
        Ok(named
            .filter_map(|arn| arn.split('/').nth(1).map(str::to_owned))
            .next())
    }

    /// Waits until the load balancer routes new visitors to the deployment. It applies a switch some
    /// seconds after the control plane has accepted it.
    ///
    /// # Errors
    /// When a minute passes without; the message says which answer the last visitor got.
    pub async fn reaches_visitors(&self, id: &str) -> anyhow::Result<()> {
        let visitor = Visitor::of(self)?;
        let last = std::sync::Mutex::new(String::new());
        self.wait_until(Duration::from_secs(60), async || {
            let answer = match visitor.visit(&Pin::None).await {
                Ok(answer) => answer.deployment,
                Err(why) => format!("{why:#}"),
            };
            let reached = answer == id;
            *last.lock().expect("no panic while waiting") = answer;
            Ok(reached)
        })
        .await
        .with_context(|| {
            let last = last.lock().expect("no panic while waiting");
            format!("{id} did not reach visitors; the last one got {last}")
        })
    }

    /// Deploys an image and waits until visitors reach it.
    ///
    /// # Errors
    /// As [`TestEnvironment::push_and_wait`], and when the image does not go live.
    pub async fn deploy_live(&self, variables: Variables<'_>) -> anyhow::Result<Execution> {
        let execution = self.push_and_wait(variables).await?;
        let Execution {
            name, error, cause, ..
        } = &execution;
        ensure!(
            execution.ending() == "Succeeded" && self.active().await?.as_ref() == Some(name),
            "{name} is not live; it ended as {}: {error}: {cause}",
            execution.ending()
        );
        self.reaches_visitors(name).await?;
        Ok(execution)
    }

    /// The names of all executions of the deploy machine, newest first.
    ///
    /// # Errors
    /// When they cannot be listed, or do not fit a page.
    pub async fn executions(&self) -> anyhow::Result<Vec<String>> {
        let listed = self
            .sfn
            .list_executions()
            .state_machine_arn(self.machine("deploy"))
            .send()
            .await?;
        ensure!(
            listed.next_token().is_none(),
            "the executions do not fit a page"
        );
        Ok(listed
            .executions
            .into_iter()
            .map(|execution| execution.name)
            .collect())
    }

    /// Waits until so many delivered push events were acted on since the call with this number: for each, the
    /// function that starts deployments has looked for an execution of its deployment.
    ///
    /// # Errors
    /// When a minute passes without.
    pub async fn events_are_acted_on(&self, since: u64, number: usize) -> anyhow::Result<()> {
        let function = Some(format!("{}-start-deployment", self.name));
        self.wait_until(Duration::from_secs(60), async || {
            let calls = self.cloud.calls().since(since);
            let looks = calls
                .iter()
                .filter(|call| call.function == function && call.operation == "ListExecutions");
            Ok(looks.count() >= number)
        })
        .await
        .with_context(|| format!("not all of {number} events were acted on"))
    }

    /// The operations after the call with this number that change ECS or Elastic Load Balancing, of all environments.
    ///
    /// # Panics
    /// When the schedule may start a cleanup at any time, whose changes would be taken for those of something else.
    pub fn changes_since(&self, number: u64) -> Vec<String> {
        let calls = self.change_calls_since(number);
        calls.into_iter().map(|call| call.operation).collect()
    }

    /// As [`TestEnvironment::changes_since`], the whole calls.
    ///
    /// # Panics
    /// As [`TestEnvironment::changes_since`].
    pub fn change_calls_since(&self, number: u64) -> Vec<Call> {
        assert!(self.cleanups_by_hand, "a cleanup may start at any time");
        let calls = self.cloud.calls().since(number);
        calls
            .into_iter()
            .filter(|call| ["ecs", "elasticloadbalancing"].contains(&call.service.as_str()))
            .filter(|call| {
                let reads = ["Describe", "List", "Get"];
                !reads.iter().any(|verb| call.operation.starts_with(verb))
            })
            .collect()
    }

    /// Pushes, and suppresses the event that would start a deployment; returns the event.
    ///
    /// # Errors
    /// As [`TestEnvironment::push`].
    pub async fn push_without_event(
        &self,
        id: &str,
        variables: Variables<'_>,
    ) -> anyhow::Result<PushEvent> {
        let mut events = self.push_without_events(&[id], variables).await?;
        events.pop().context("the push caused no event")
    }

    /// As [`TestEnvironment::push_without_event`], several at once. Returns their events in the same order.
    ///
    /// # Errors
    /// As [`TestEnvironment::push`].
    pub async fn push_without_events(
        &self,
        ids: &[impl AsRef<str>],
        variables: Variables<'_>,
    ) -> anyhow::Result<Vec<PushEvent>> {
        let events = self.cloud.push_events();
        events.suppress(true);
        let pushes = ids.iter().map(|id| self.push(id.as_ref(), variables));
        let pushed = try_join_all(pushes).await;
        events.suppress(false);
        pushed?;
        let emitted = events.emitted();
        let of = |id: &str| emitted.iter().rfind(|event| event.tag == id).cloned();
        ids.iter()
            .map(|id| of(id.as_ref()).context("the push caused no event"))
            .collect()
    }

    /// The URL that visitors request.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.load_balancer.https_port())
    }

    /// Stops the local cloud, if no other environment is left on it.
    pub async fn tear_down(self) {
        if let Some(cloud) = Arc::into_inner(self.cloud) {
            cloud.stop().await;
        }
    }
}

/// The sample application, compressed once for all test processes and read once in each.
async fn application() -> anyhow::Result<&'static image::Layer> {
    static APPLICATION: OnceCell<image::Layer> = OnceCell::const_new();
    let packed = async || {
        let program = built("sample-app")?;
        let cache = program.with_file_name("layers");
        image::Layer::of_program(&program, Some(&cache))
    };
    APPLICATION.get_or_try_init(packed).await
}

async fn administrator(endpoint_url: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint_url)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "local cloud"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .load()
        .await
}

/// The path of a built file, in the folder of this binary or one above it.
///
/// # Errors
/// When the file is not built; the message says how to build it.
pub(crate) fn built(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let mut found = here.ancestors().map(|folder| folder.join(name));
    found
        .find(|path| Path::is_file(path))
        .with_context(|| format!("{name} is not built: make build sample-app"))
}

/// The variables for the deploy script with which no deployment is watched, unless they say how long it is. Otherwise each
/// execution would take as long as its watch.
fn without_watch<'a>(variables: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
    const PARAMETERS: &str = "PIPELINE_PARAMETERS";
    let given = variables.iter().find(|(name, _)| *name == PARAMETERS);
    let mut parameters = given.map_or_else(String::new, |(_, value)| (*value).to_owned());
    if !parameters.contains("WatchSeconds=") {
        parameters = format!("WatchSeconds=0 {parameters}").trim_end().to_owned();
    }
    let others = variables.iter().filter(|(name, _)| *name != PARAMETERS);
    let others = others.map(|(name, value)| (*name, (*value).to_owned()));
    others.chain([(PARAMETERS, parameters)]).collect()
}
