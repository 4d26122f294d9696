//! Starts and stops all parts of the local cloud.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

use crate::{
    aws_cli::AwsCli,
    cloudwatch::{self, PublicationDelay},
    control_plane::ControlPlaneFeed,
    ecs::{Ecs, LoopbackNetwork},
    gateway::{
        Gateway, Services,
        autoscaling::Autoscaling,
        calls::Calls,
        ecr::{Ecr, Events},
        elbv2::Elbv2,
        faults::Faults,
        forward::Forward,
    },
    load_balancer::{
        self, LoadBalancer, fleet::LoadBalancers, metrics::Metrics, targets::Targets,
        threads::Threads,
    },
    ministack::{Client, MiniStack, MiniStackOptions, REGION},
    time_scale::TimeScale,
};

/// Seconds for which a deployment is watched on AWS, unless a parameter of the pipeline says otherwise.
const WATCH_SECONDS: f64 = 120.0;

/// The settings of a local cloud. The default takes free ports and a tenth of AWS's durations.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The port of the gateway; 0 takes a free one.
    pub gateway_port: u16,
    /// The local port for the first load balancer's listeners on port 80; 0 takes a free one.
    /// Further load balancers take free ones.
    pub http_port: u16,
    /// The local port for the first load balancer's listeners on port 443; 0 takes a free one.
    pub https_port: u16,
    /// The factor for all durations of AWS.
    pub time_scale: TimeScale,
    /// Whether each load balancer has a second node, which applies a change at once. The first node follows after
    /// the delay of AWS.
    pub second_node: bool,
    /// How long after the end of a minute CloudWatch has its metrics of the load balancers.
    pub publication_delay: PublicationDelay,
}

/// A running local cloud. [`LocalCloud::stop`] ends it in order; if it is dropped instead, its processes
/// end too.
pub struct LocalCloud {
    ministack: MiniStack,
    aws_cli: AwsCli,
    gateway: Gateway,
    load_balancers: Arc<LoadBalancers>,
    feed: ControlPlaneFeed,
    targets: Targets,
    ecs: Ecs,
    following: JoinHandle<()>,
    scaling: JoinHandle<()>,
    /// Seconds for which deployments are watched, unless a caller says otherwise.
    watch_seconds: u64,
    publishing: JoinHandle<()>,
    // The load balancer and the health checks run on these.
    _threads: Threads,
    // Images, function code and logs. Removed when this is dropped.
    _state_dir: TempDir,
}

impl LocalCloud {
    /// Starts all parts and returns when they answer.
    ///
    /// # Errors
    /// If a port is in use, or MiniStack does not start.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let state_dir = tempfile::Builder::new().prefix("localcloud-").tempdir()?;
        let python = workspace_python();
        let aws_cli = AwsCli::start(&python, state_dir.path())?;
        // Bound first, because the environment of functions contains its address.
        let listener = TcpListener::bind(("127.0.0.1", options.gateway_port))
            .await
            .with_context(|| format!("cannot listen on port {}", options.gateway_port))?;
        let endpoint_url = format!("http://{}", listener.local_addr()?);
        let ministack = MiniStack::start(MiniStackOptions {
            python: &python,
            state_dir: state_dir.path(),
            endpoint_url: &endpoint_url,
            wait_scale: options.time_scale.0,
        })
        .await?;
        let client = ministack.client().clone();
        let threads = Threads::start()?;
        let targets = {
            let _on_these_threads = threads.enter();
            Targets::new(options.time_scale)
        };
        let metrics = Metrics::default();
        let load_balancers = LoadBalancers::start(
            load_balancer::Options {
                http_port: options.http_port,
                https_port: options.https_port,
                nodes: 1 + usize::from(options.second_node),
                ..load_balancer::Options::default()
            },
            targets.clone(),
            metrics.clone(),
            threads.handle().clone(),
        )
        .await?;
        let load_balancers = Arc::new(load_balancers);
        let feed = ControlPlaneFeed::new(client.clone(), targets.clone());
        let elbv2 = Elbv2::new(client.clone(), targets.clone(), feed.clone());
        let ecs = Ecs::new(
            client.clone(),
            targets.clone(),
            listener.local_addr()?.to_string(),
            state_dir.path().join("tasks"),
            options.time_scale,
            LoopbackNetwork::claim().context("cannot find a loopback network for tasks")?,
        );
        let autoscaling = Autoscaling::new(client.clone(), ecs.clone(), feed.clone());
        let services = Services {
            forward: Forward::new(client.clone()),
            elbv2,
            ecr: Ecr::new(client.clone()),
            ecs: ecs.clone(),
            autoscaling: autoscaling.clone(),
        };
        let gateway = Gateway::serve(listener, services)?;
        Ok(Self {
            ministack,
            aws_cli,
            gateway,
            following: feed.follow(load_balancers.clone(), options.time_scale),
            scaling: autoscaling.follow(targets.clone(), options.time_scale),
            watch_seconds: options.time_scale.seconds(WATCH_SECONDS).as_secs(),
            publishing: cloudwatch::publish(client, metrics, options.publication_delay),
            load_balancers,
            feed,
            targets,
            ecs,
            _threads: threads,
            _state_dir: state_dir,
        })
    }

    /// The URL of the gateway, which clients use as `AWS_ENDPOINT_URL`.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.gateway.address())
    }

    /// `host:port` of the image registry, which is the gateway.
    pub fn registry(&self) -> String {
        self.gateway.address().to_string()
    }

    /// A client that calls MiniStack directly, without the gateway, as root.
    pub fn client(&self) -> &Client {
        self.ministack.client()
    }

    /// The record of the calls that reached the gateway.
    pub fn calls(&self) -> &Calls {
        self.gateway.calls()
    }

    /// The faults that the gateway injects.
    pub fn faults(&self) -> &Faults {
        self.gateway.faults()
    }

    /// The events of pushes to the registry.
    pub fn push_events(&self) -> &Events {
        self.gateway.ecr().events()
    }

    /// Sets the quota of rules per load balancer, which AWS raises on request.
    pub fn set_rules_per_load_balancer(&self, quota: usize) {
        self.gateway.elbv2().set_rules_per_load_balancer(quota);
    }

    /// The targets of all target groups, with their health.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The ECS services and tasks, with their processes.
    pub fn ecs(&self) -> &Ecs {
        &self.ecs
    }

    /// The first load balancer's data plane.
    pub fn load_balancer(&self) -> &Arc<LoadBalancer> {
        self.load_balancers.first()
    }

    /// The data plane of an environment's load balancer.
    ///
    /// # Errors
    /// If it has no listener, or MiniStack does not answer.
    pub async fn load_balancer_of(&self, environment: &str) -> anyhow::Result<Arc<LoadBalancer>> {
        self.feed.refresh().await?;
        let name = format!("{environment}-alb");
        let found = self.load_balancers.named(&name, &self.feed.newest()).await;
        found.with_context(|| format!("the load balancer {name} has no listener"))
    }

    /// The environment variables with which the AWS CLI and the SDKs call this local cloud as root.
    pub fn aws_settings(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint_url()),
            ("AWS_REGION", REGION.into()),
            ("AWS_DEFAULT_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "test".into()),
        ]
    }

    /// Deploys the stacks of an environment with `infra/deploy.sh`, as on AWS.
    ///
    /// # Errors
    /// If the script fails. It prints the reason to standard error.
    pub async fn deploy(&self, environment: &str) -> anyhow::Result<()> {
        self.deploy_with(environment, &[] as &[(&str, &str)]).await
    }

    /// The same as [`LocalCloud::deploy`], with other variables for the script.
    ///
    /// # Errors
    /// If the script fails. It prints the reason to standard error.
    pub async fn deploy_with(
        &self,
        environment: &str,
        variables: &[(&str, impl AsRef<OsStr>)],
    ) -> anyhow::Result<()> {
        let status = self
            .deployment(environment)?
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .status()
            .await
            .context("cannot run infra/deploy.sh")?;
        if !status.success() {
            bail!("infra/deploy.sh ended with {status}");
        }
        Ok(())
    }

    /// The command of [`LocalCloud::deploy`].
    ///
    /// # Errors
    /// If the workspace has no `.venv`.
    pub fn deployment(&self, environment: &str) -> anyhow::Result<Command> {
        let mut script = self.command("infra/deploy.sh")?;
        script
            .env("ENV", environment)
            .env("DOMAIN", format!("{environment}.local"))
            .env(
                "CERTIFICATE_ARN",
                format!("arn:aws:acm:{REGION}:000000000000:certificate/{environment}"),
            )
            // Those of the user have no effect.
            .env_remove("BASELINE_PARAMETERS")
            // As long as on AWS, in the time of this cloud.
            .env(
                "PIPELINE_PARAMETERS",
                format!("WatchSeconds={}", self.watch_seconds),
            )
            .env("ARCH", lambda_architecture())
            // `make` builds them first. A build here would wait for the cargo that runs the tests.
            .env("SKIP_BUILD", "1");
        Ok(script)
    }

    /// A command in the folder of the workspace whose AWS CLI calls this local cloud. AWS settings of the
    /// user have no effect. The process is killed when it is dropped.
    ///
    /// # Errors
    /// If the workspace has no `.venv`.
    pub fn command(&self, program: &str) -> anyhow::Result<Command> {
        let workspace = workspace();
        let tools = workspace.join(".venv/bin").canonicalize()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .current_dir(&workspace)
            .envs(self.aws_settings())
            // A profile or a session of the user must not redirect calls.
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env_remove("AWS_PROFILE")
            .env_remove("AWS_SESSION_TOKEN")
            .envs(
                self.aws_cli
                    .settings(&format!("{}:{path}", tools.display())),
            )
            .kill_on_drop(true);
        Ok(command)
    }

    /// Stops all parts and all their processes.
    pub async fn stop(self) {
        self.following.abort();
        self.scaling.abort();
        self.publishing.abort();
        self.ecs.shutdown().await;
        self.gateway.stop().await;
        self.ministack.stop().await;
    }
}

/// The Python interpreter of the environment that `make` creates in the workspace.
pub(crate) fn workspace_python() -> PathBuf {
    workspace().join(".venv/bin/python3")
}

/// The architecture of this machine, on which functions run, by its name in Lambda.
fn lambda_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
