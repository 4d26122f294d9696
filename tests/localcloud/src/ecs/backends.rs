//! The interface of the scheduler to the rest of the cloud: MiniStack, the targets of the load balancer
//! and the images. It is a trait, so that tests run the scheduler and the tasks with real processes
//! but without MiniStack. [`super::aws`] is the real implementation.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::answer::Refusal;
use super::model::TaskDefinition;
use super::names::ClusterName;
use super::secrets::SecretReference;
use crate::image::Folder;

/// How a target group is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetGroupUse {
    Missing,
    /// It exists, but no listener and no rule names it.
    Unattached,
    /// A listener or a rule names it.
    Attached,
}

/// An image that was pulled and unpacked.
#[derive(Debug)]
pub struct Image {
    /// The folder that is the container's `/`.
    pub root: PathBuf,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// The image's environment, `NAME=value`.
    pub environment: Vec<String>,
    /// The image's working directory inside `root`.
    pub working_dir: Option<String>,
    /// The digest of its manifest.
    pub digest: String,
    /// The image's `STOPSIGNAL`.
    pub stop_signal: Option<String>,
    /// Keeps the image on the disk. Absent for one that stays there anyway.
    pub folder: Option<Arc<Folder>>,
}

/// The health of a target as the load balancer reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub ip: IpAddr,
    pub port: u16,
    /// `initial`, `healthy`, `unhealthy`, `unused` or `draining`.
    pub state: String,
    /// The description, e.g. `Health checks failed with these codes: [500]`.
    pub description: Option<String>,
}

/// The error of an AWS call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    pub code: String,
    pub message: String,
}

pub trait Backends: Send + Sync + 'static {
    /// The cluster with a name or ARN.
    fn cluster<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ClusterName, Refusal>>;

    /// The task definition with a family, a family and revision, or an ARN. `None` if it does not exist.
    fn task_definition<'a>(
        &'a self,
        reference: &'a str,
    ) -> BoxFuture<'a, Result<Option<TaskDefinition>, Refusal>>;

    fn target_group<'a>(&'a self, arn: &'a str) -> BoxFuture<'a, Result<TargetGroupUse, Refusal>>;

    /// The availability zone of a subnet. `None` if the subnet does not exist.
    fn subnet_zone<'a>(&'a self, subnet: &'a str)
    -> BoxFuture<'a, Result<Option<String>, Refusal>>;

    fn has_security_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, Refusal>>;

    /// Whether a role exists and ECS tasks may assume it.
    fn tasks_may_assume<'a>(&'a self, role_arn: &'a str) -> BoxFuture<'a, Result<bool, CallError>>;

    /// Whether a role's policies allow an action on a resource.
    fn role_allows<'a>(
        &'a self,
        role_arn: &'a str,
        action: &'a str,
        resource: &'a str,
    ) -> BoxFuture<'a, Result<bool, CallError>>;

    /// The text of a secret, in the version that the reference names.
    fn secret<'a>(
        &'a self,
        reference: &'a SecretReference,
    ) -> BoxFuture<'a, Result<String, CallError>>;

    /// The values of parameters, decrypted, by their names or ARNs as they are given. Those that do not exist
    /// are left out. At most 10 can be read in one call.
    fn parameters<'a>(
        &'a self,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, String>, CallError>>;

    /// Creates a log stream, unless it exists.
    fn create_log_stream<'a>(
        &'a self,
        group: &'a str,
        stream: &'a str,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Adds lines, each with its time in milliseconds since 1970, to a log stream.
    fn put_log_events<'a>(
        &'a self,
        group: &'a str,
        stream: &'a str,
        lines: Vec<(u64, String)>,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Pulls and unpacks an image. The error is the `stoppedReason` of the task.
    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Image, String>>;

    fn register(&self, group_arn: &str, ip: IpAddr, port: u16, zone: &str);

    /// Deregisters a target. [`Backends::health`] contains it until its connections are drained.
    fn deregister(&self, group_arn: &str, ip: IpAddr, port: u16);

    fn health(&self, group_arn: &str) -> Vec<Health>;
}
