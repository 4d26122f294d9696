//! The part of ELB and ECS that a switch and an undo use. A call is one atomic step.

use crate::call::{
    ANNOUNCED, Answer, Call, DELETING, DRAINING, Deployment, GAVE_WAY, LIVE, Marks, ROLLED_BACK,
    Resource, Service, Tasks,
};

/// A deployment as AWS keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// Whether its target group exists.
    pub exists: bool,
    /// The marks on the target group.
    pub marks: Marks,
    /// Its rules, as bits: by header and by cookie, and those that were made again. They have other ARNs, so that who
    /// deletes the first ones does not find them.
    pub rules: u8,
    /// Its service.
    pub service: Service,
    /// Whether its tasks answer health checks, as long as the service exists.
    pub answers: bool,
    /// The tasks of the service.
    pub tasks: Tasks,
    /// The generations of tasks that were asked to drain, as bits.
    pub asked: u8,
}

impl Group {
    /// A whole and healthy deployment with these marks.
    pub fn with(marks: Marks) -> Group {
        Group {
            exists: true,
            marks,
            rules: 0b11,
            service: Service::Active,
            answers: true,
            tasks: Tasks::default(),
            asked: 0,
        }
    }

    /// The same deployment after a sweep has asked its tasks to drain.
    pub fn asked(self) -> Group {
        Group {
            marks: self.marks | DRAINING,
            tasks: Tasks {
                is_endless: true,
                ..self.tasks
            },
            asked: self.tasks.running(),
            ..self
        }
    }

    /// The same deployment after a cleanup has found none of its tasks and deleted its rules.
    pub fn unrouted(self) -> Group {
        Group {
            rules: 0,
            tasks: Tasks {
                wanted: 0,
                ..self.tasks
            },
            ..self
        }
    }

    /// Whether a task that was asked to drain runs.
    pub fn drains(&self) -> bool {
        self.service == Service::Active && self.tasks.running() & self.asked != 0
    }

    /// The same deployment with tasks that fail their health checks.
    pub fn unhealthy(self) -> Group {
        Group {
            answers: false,
            ..self
        }
    }

    /// Whether it has a healthy target. ECS deregisters them all when the service is deleted, and the load balancer checks
    /// none that no rule leads to.
    pub fn healthy(&self) -> bool {
        let runs = self.service == Service::Active && self.tasks.wanted > 0;
        self.exists && self.answers && self.rules != 0 && runs
    }

    /// Whether a rule by header and one by cookie lead to it.
    pub fn is_pinned(&self) -> bool {
        (self.rules | self.rules >> 2) & 0b11 == 0b11
    }

    /// Makes the rules that are missing.
    pub fn make_rules(&mut self) {
        for kind in 0..2 {
            if self.rules & (0b101 << kind) == 0 {
                self.rules |= 0b100 << kind;
            }
        }
    }

    /// Whether an operator who looks at it would give it traffic: it is whole, and nothing is about to end it.
    pub fn is_fit(&self) -> bool {
        const ENDS: Marks = DRAINING | DELETING | ROLLED_BACK;
        self.healthy() && self.is_pinned() && self.marks & LIVE != 0 && self.marks & ENDS == 0
    }
}

/// The listener with its deployments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The deployment that the default action names.
    pub default: Option<Deployment>,
    /// One that it names as well, with less weight, because an operator has split the traffic.
    pub also: Option<Deployment>,
    /// The deployments, oldest first.
    pub groups: Vec<Group>,
}

impl World {
    /// A listener whose default action names that deployment.
    pub fn new(default: Option<Deployment>, groups: Vec<Group>) -> World {
        World {
            default,
            also: None,
            groups,
        }
    }

    /// The deployments that the default action names.
    pub fn named(&self) -> impl Iterator<Item = Deployment> {
        self.default.into_iter().chain(self.also)
    }

    /// The deployment of that age.
    pub fn group(&self, deployment: Deployment) -> &Group {
        &self.groups[usize::from(deployment)]
    }

    /// The deployment of that age, to change it.
    pub fn group_mut(&mut self, deployment: Deployment) -> &mut Group {
        &mut self.groups[usize::from(deployment)]
    }

    /// Applies a call and gives the answer.
    pub fn answer(&mut self, call: &Call) -> Answer {
        const NO_GROUP: Answer = Answer::Error("TargetGroupNotFound");
        match call {
            Call::DescribeListeners => Answer::Default(self.default, self.also),
            Call::DescribeRules => {
                Answer::Rules(self.groups.iter().map(|group| group.rules).collect())
            }
            Call::DescribeTags(resources) => {
                let mut marks = Vec::with_capacity(resources.len());
                for resource in resources {
                    let group = self.group(resource.deployment());
                    match resource {
                        Resource::Group(_) if !group.exists => return NO_GROUP,
                        Resource::Rule(_, number) if group.rules & (1 << number) == 0 => {
                            return Answer::Error("RuleNotFound");
                        }
                        Resource::Group(_) => marks.push(group.marks),
                        Resource::Rule(..) => marks.push(0),
                    }
                }
                Answer::Marks(marks)
            }
            Call::DescribeTargetHealth(deployment) => match self.group(*deployment) {
                group if group.exists => Answer::Healthy(group.healthy()),
                _ => NO_GROUP,
            },
            Call::DescribeTargetGroups(deployment) => {
                if self.group(*deployment).exists {
                    Answer::Group
                } else {
                    NO_GROUP
                }
            }
            Call::AddTags(deployment, marks) => match self.group_mut(*deployment) {
                group if group.exists => {
                    if marks & DRAINING != 0 {
                        group.marks &= !GAVE_WAY;
                        if group.marks & ANNOUNCED != 0 {
                            group.marks |= GAVE_WAY;
                        }
                    }
                    group.marks |= marks;
                    Answer::Done
                }
                _ => NO_GROUP,
            },
            Call::RemoveTags(deployment, marks) => match self.group_mut(*deployment) {
                group if group.exists => {
                    group.marks &= !marks;
                    if marks & DRAINING != 0 {
                        group.marks &= !GAVE_WAY;
                    }
                    Answer::Done
                }
                _ => NO_GROUP,
            },
            Call::ModifyListener(deployment) => {
                if !self.group(*deployment).exists {
                    return NO_GROUP;
                }
                (self.default, self.also) = (Some(*deployment), None);
                Answer::Done
            }
            Call::DeleteRule(deployment, number) => {
                let group = self.group_mut(*deployment);
                let bit = 1 << number;
                let there = group.rules & bit != 0;
                group.rules &= !bit;
                if there {
                    Answer::Done
                } else {
                    Answer::Error("RuleNotFound")
                }
            }
            Call::DeleteTargetGroup(deployment) => {
                let is_named = self.named().any(|named| named == *deployment);
                let group = self.group_mut(*deployment);
                if group.rules != 0 || is_named {
                    return Answer::Error("ResourceInUse");
                }
                *group = Group {
                    exists: false,
                    marks: 0,
                    ..*group
                };
                Answer::Done
            }
            Call::DescribeServices(deployment) => {
                let group = self.group(*deployment);
                Answer::Service(group.service, group.tasks)
            }
            Call::DeleteService(deployment) => {
                let group = self.group_mut(*deployment);
                match group.service {
                    Service::Active => {
                        group.service = Service::Draining;
                        Answer::Service(Service::Draining, group.tasks)
                    }
                    Service::Draining | Service::Gone => Answer::Error("ServiceNotActiveException"),
                }
            }
            Call::LowerCount(deployment, count) => {
                self.update_service(*deployment, |tasks| Tasks {
                    wanted: *count,
                    ..tasks
                })
            }
            Call::StartFreshTasks(deployment) => self.update_service(*deployment, |tasks| Tasks {
                wanted: Tasks::default().wanted,
                newest: tasks.newest + 1,
                is_endless: false,
                ..tasks
            }),
            Call::SetGracePeriod(deployment, is_endless) => {
                self.update_service(*deployment, |tasks| Tasks {
                    is_endless: *is_endless,
                    ..tasks
                })
            }
            Call::ListTasks(deployment) => Answer::Running(match self.group(*deployment) {
                group if group.service == Service::Active => group.tasks.running(),
                _ => 0,
            }),
            Call::DescribeTasks(_)
            | Call::ListStoppedTasks(_)
            | Call::ListReleases
            | Call::GetSecretValue
            | Call::ListTaskDefinitions => Answer::Done,
        }
    }

    fn update_service(
        &mut self,
        deployment: Deployment,
        change: impl Fn(Tasks) -> Tasks,
    ) -> Answer {
        let group = self.group_mut(deployment);
        if group.service != Service::Active {
            return Answer::Error("ServiceNotActiveException");
        }
        let before = group.tasks;
        let changed = change(before);
        // ECS starts no task for a target group that no load balancer uses.
        if group.rules == 0 && changed.newest > before.newest {
            return Answer::Unrouted;
        }
        group.tasks = changed;
        Answer::Done
    }
}
