//! Explores every order of the calls of several executions, and checks what must hold in all of them.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;

use crate::call::{
    ANNOUNCED, Answer, Call, DELETING, DRAINING, Deployment, LIVE, READY, RESTORING, ROLLED_BACK,
    Service, Tasks,
};
use crate::learned::{Code, Ending, Invocation, Learned, Next, Point};
use crate::world::World;

/// What happens after a running function is killed. It dies between two calls, or after its last call
/// and before its own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Death {
    /// The state machine invokes it again, at most this often.
    Retried(u8),
    /// The state machine does not invoke it again and goes on to the undo.
    GivenUp,
    /// An operator stopped the execution.
    Stopped,
}

/// What an execution does, as in `statemachine/*.asl.json`.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    /// Switches, and undoes a candidate that did not go live.
    Deploy(Deployment),
    /// Switches and ends, which keeps the number of states small.
    Switch(Deployment),
    /// Switches back without an undo.
    RollBack(Deployment),
    /// Brings a deployment back, waits for its fresh tasks and switches.
    Restore(Deployment),
    /// Drains a deployment by one sweep.
    Drain(Deployment),
    /// Removes the mark of a rollback: an operator, or time.
    Forget(Deployment),
    /// Deletes a candidate that an execution left behind.
    Undo(Deployment),
    /// Deletes a deployment that was live.
    CleanUp(Deployment),
}

impl Plan {
    fn deployment(self) -> Deployment {
        match self {
            Plan::Deploy(deployment)
            | Plan::Switch(deployment)
            | Plan::RollBack(deployment)
            | Plan::Restore(deployment)
            | Plan::Drain(deployment)
            | Plan::Forget(deployment)
            | Plan::Undo(deployment)
            | Plan::CleanUp(deployment) => deployment,
        }
    }

    fn deletes(self) -> bool {
        matches!(self, Plan::Deploy(_) | Plan::Undo(_) | Plan::CleanUp(_))
    }

    /// Whether it may change the service other than by deleting it.
    fn updates_the_service(self) -> bool {
        matches!(self, Plan::Restore(_) | Plan::Drain(_))
    }

    fn switches(self) -> bool {
        matches!(
            self,
            Plan::Deploy(_) | Plan::Switch(_) | Plan::RollBack(_) | Plan::Restore(_)
        )
    }

    /// `world` is the cloud when the execution began: a rollback chooses then what it replaces. `replaced` is
    /// what its first step has chosen, if that is part of the plan.
    fn switch(self, world: &World, replaced: Option<u8>) -> Invocation {
        Invocation::Switch {
            deployment: self.deployment(),
            roll_back: match self {
                Plan::RollBack(target) => Some(replaced_by(target, world)),
                _ => replaced,
            },
            restored: matches!(self, Plan::Restore(_)),
        }
    }

    fn take_back(self, world: &World, replaced: Option<u8>) -> Invocation {
        Invocation::TakeBack {
            deployment: self.deployment(),
            replaced: replaced.unwrap_or_default(),
            active: world.default,
        }
    }

    fn restore(self) -> Invocation {
        Invocation::Restore {
            deployment: self.deployment(),
        }
    }

    fn drain(self) -> Invocation {
        Invocation::Drain {
            deployment: self.deployment(),
        }
    }

    fn delete(self) -> Invocation {
        Invocation::Delete {
            deployment: self.deployment(),
            only_if_never_live: !matches!(self, Plan::CleanUp(_)),
        }
    }
}

/// The deployments, as bits, that a rollback to that deployment replaces. `restore-deployment` chooses
/// them before the switch.
fn replaced_by(target: Deployment, world: &World) -> u8 {
    let ready = (0..).zip(&world.groups).filter(|(deployment, group)| {
        *deployment > target && group.marks & READY != 0 && group.marks & DELETING == 0
    });
    ready
        .map(|(deployment, _): (Deployment, _)| deployment)
        .chain(world.default)
        .fold(0, |replaced, deployment| replaced | 1 << deployment)
}

/// A cloud and the executions to explore in it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name in reports.
    pub name: &'static str,
    /// The cloud at the beginning.
    pub world: World,
    /// The executions.
    pub plans: Vec<Plan>,
    /// The number of the execution whose functions may die, and what happens then.
    pub death: Option<(usize, Death)>,
    /// How many ModifyListener and UpdateService calls may fail: with or without an effect, with an error that is worth a
    /// retry or one that is not.
    pub failures: u8,
    /// How many preemptions an order may have, which is how often another execution continues while the
    /// last one could. `None` explores every order. Three executions have too many orders, and their
    /// races need few preemptions.
    pub preemptions: Option<u8>,
    /// Whether an undo waits between two of its calls for the switches in flight, as the five seconds of
    /// the state machine do. A switch needs far less from its read of the tags to its modification.
    pub undo_waits: bool,
}

impl Scenario {
    /// Every order, without deaths and failures.
    pub fn new(name: &'static str, world: World, plans: &[Plan]) -> Scenario {
        Scenario {
            name,
            world,
            plans: plans.to_vec(),
            death: None,
            failures: 0,
            preemptions: None,
            undo_waits: true,
        }
    }

    /// The same scenario in which the functions of that execution may die.
    pub fn dying(self, execution: usize, death: Death) -> Scenario {
        Scenario {
            death: Some((execution, death)),
            ..self
        }
    }

    /// The same scenario in the orders with at most that many preemptions.
    pub fn with_preemptions(self, preemptions: u8) -> Scenario {
        Scenario {
            preemptions: Some(preemptions),
            ..self
        }
    }

    /// The same scenario in which that many modifications may fail.
    pub fn failing(self, failures: u8) -> Scenario {
        Scenario { failures, ..self }
    }
}

/// The progress of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// Finds the target of a rollback, and starts its fresh tasks.
    Restoring(Point),
    /// Until the fresh tasks are healthy and the others have stopped.
    WaitingForTasks,
    Draining(Point),
    /// The sweep has decided to ask these generations of tasks, as bits.
    Asking(u8),
    /// An operator, or time, removes the mark of a rollback.
    Forgetting,
    Switching(Point),
    /// Takes the marks of a failed rollback back.
    TakingBack(Point),
    Undoing(Point),
    /// Between two calls of the undo, until these executions, as bits, can no longer act on what they
    /// have read.
    Waiting(u8),
    Ended(Ending),
    Stopped,
}

impl Stage {
    /// Where a running function is.
    fn point(self) -> Option<Point> {
        match self {
            Stage::Restoring(point)
            | Stage::Draining(point)
            | Stage::Switching(point)
            | Stage::TakingBack(point)
            | Stage::Undoing(point) => Some(point),
            _ => None,
        }
    }

    /// Whether the execution goes on without a call.
    fn proceeds(self) -> bool {
        matches!(
            self,
            Stage::WaitingForTasks | Stage::Asking(_) | Stage::Forgetting
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Execution {
    stage: Stage,
    /// What its rollback replaces.
    replaced: Option<u8>,
    /// The deployment that its switch has announced.
    announced: Option<Deployment>,
    /// The generations of tasks that its drain has listed.
    listed: u8,
    /// How its last switch ended.
    switch: Option<Ending>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    world: World,
    executions: Vec<Execution>,
    deaths: u8,
    failures: u8,
    /// The deployments that were ever named by the default action, as bits.
    named: u8,
    /// The execution that continued last, and how many preemptions are left. Both are unused when every
    /// order is explored.
    last: usize,
    preemptions: u8,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Call(usize),
    /// Goes on without a call.
    Proceeds(usize),
    AnswerLost(usize),
    FailsBefore(usize, &'static str),
    FailsAfter(usize),
    Dies(usize),
}

impl Step {
    fn execution(self) -> usize {
        match self {
            Step::Call(execution)
            | Step::Proceeds(execution)
            | Step::AnswerLost(execution)
            | Step::FailsBefore(execution, _)
            | Step::FailsAfter(execution)
            | Step::Dies(execution) => execution,
        }
    }
}

/// The size of an exploration.
#[derive(Debug, Clone, Copy)]
pub struct Explored {
    /// Distinct states of the cloud and all executions.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Distinct orders from the beginning to an end. Orders that differ only in the time of a read that
    /// no other execution affects count once.
    pub schedules: f64,
    /// States in which everything has ended.
    pub ends: usize,
    /// Distinct points of the code that were reached.
    pub points: usize,
    /// Calls that the code made to reach them.
    pub calls: usize,
}

/// Explores a scenario to the end.
///
/// # Errors
/// The property that does not hold, with the shortest order that leads to it.
pub fn explore(scenario: &Scenario, code: Code) -> Result<Explored, String> {
    Exploration {
        scenario,
        learned: Learned::new(code),
        seen: HashMap::new(),
        states: Vec::new(),
        came_from: Vec::new(),
        queue: VecDeque::new(),
    }
    .run()
}

/// A scenario with more states is too big to be explored to the end.
const MAX_STATES: usize = 400_000;

struct Exploration<'a> {
    scenario: &'a Scenario,
    learned: Learned,
    seen: HashMap<Rc<State>, usize>,
    states: Vec<Rc<State>>,
    came_from: Vec<Option<(usize, Step)>>,
    queue: VecDeque<usize>,
}

impl Exploration<'_> {
    fn run(mut self) -> Result<Explored, String> {
        let plans = self.scenario.plans.clone();
        let executions = plans
            .iter()
            .map(|plan| Execution {
                stage: match plan {
                    Plan::Deploy(_) | Plan::Switch(_) | Plan::RollBack(_) => Stage::Switching(
                        self.learned.begin(plan.switch(&self.scenario.world, None)),
                    ),
                    Plan::Restore(_) => Stage::Restoring(self.learned.begin(plan.restore())),
                    Plan::Drain(_) => Stage::Draining(self.learned.begin(plan.drain())),
                    Plan::Forget(_) => Stage::Forgetting,
                    Plan::Undo(_) | Plan::CleanUp(_) => {
                        Stage::Undoing(self.learned.begin(plan.delete()))
                    }
                },
                replaced: None,
                announced: None,
                listed: 0,
                switch: None,
            })
            .collect();
        let named = self.scenario.world.default.map_or(0, |active| 1 << active);
        self.visit(
            State {
                world: self.scenario.world.clone(),
                executions,
                deaths: match self.scenario.death {
                    None => 0,
                    Some((_, Death::Retried(times))) => times,
                    Some((_, Death::GivenUp | Death::Stopped)) => 1,
                },
                failures: self.scenario.failures,
                named,
                last: usize::MAX,
                preemptions: self.scenario.preemptions.unwrap_or_default(),
            },
            None,
        )?;
        let (mut edges, mut ends) = (Vec::new(), 0);
        while let Some(at) = self.queue.pop_front() {
            let mut next = Vec::new();
            for step in self.steps(&Rc::clone(&self.states[at])) {
                let state = self
                    .apply(&Rc::clone(&self.states[at]), step)
                    .map_err(|what| self.report(what, Some((at, step))))?;
                next.push(self.visit(state, Some((at, step)))?);
            }
            if next.is_empty() {
                ends += 1;
                let state = Rc::clone(&self.states[at]);
                self.check_end(&state)
                    .map_err(|what| self.report(what, self.came_from[at]))?;
            }
            // States are taken from the queue in the order of their numbers.
            edges.push(next);
        }
        Ok(Explored {
            states: self.states.len(),
            steps: edges.iter().map(Vec::len).sum(),
            schedules: paths(&edges),
            ends,
            points: self.learned.points(),
            calls: self.learned.calls,
        })
    }

    fn visit(&mut self, state: State, from: Option<(usize, Step)>) -> Result<usize, String> {
        if let Some(known) = self.seen.get(&state) {
            return Ok(*known);
        }
        if let Err(what) = check(&state, self.scenario.failures > state.failures) {
            return Err(self.report(what, from));
        }
        if self.states.len() == MAX_STATES {
            return Err(format!("more than {MAX_STATES} states"));
        }
        let state = Rc::new(state);
        let number = self.states.len();
        self.seen.insert(Rc::clone(&state), number);
        self.states.push(state);
        self.came_from.push(from);
        self.queue.push_back(number);
        Ok(number)
    }

    fn next_call(&self, state: &State, execution: usize) -> Option<&Call> {
        let point = state.executions[execution].stage.point()?;
        match self.learned.next(point) {
            Next::Calls(call) => Some(call),
            Next::Ends(_) => None,
        }
    }

    /// Whether that execution preempts the last one, which could continue as well.
    fn preempts(&self, state: &State, execution: usize) -> bool {
        self.scenario.preemptions.is_some()
            && state.last < state.executions.len()
            && state.last != execution
            && self.next_call(state, state.last).is_some()
    }

    fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for execution in 0..state.executions.len() {
            let call = self.next_call(state, execution);
            if call.is_some_and(|call| self.is_unaffected(state, execution, call)) {
                // It commutes with every step of the others, so one order represents all.
                return vec![Step::Call(execution)];
            }
            if state.preemptions == 0 && self.preempts(state, execution) {
                continue;
            }
            if state.executions[execution].stage.proceeds() {
                steps.push(Step::Proceeds(execution));
            }
            let Some(call) = call else {
                continue;
            };
            steps.push(Step::Call(execution));
            let may_fail = matches!(
                call,
                Call::ModifyListener(_) | Call::SetGracePeriod(..) | Call::StartFreshTasks(_)
            );
            if may_fail && state.failures > 0 {
                steps.extend([
                    Step::FailsBefore(execution, "AccessDenied"),
                    Step::FailsBefore(execution, "InternalFailure"),
                    Step::FailsAfter(execution),
                ]);
            }
            if self.may_die(state, execution) {
                steps.push(Step::Dies(execution));
                steps.push(Step::AnswerLost(execution));
            }
        }
        steps
    }

    fn may_die(&self, state: &State, execution: usize) -> bool {
        state.deaths > 0 && self.scenario.death.is_some_and(|(who, _)| who == execution)
    }

    /// Whether a call only reads a resource that no other execution can change any more.
    fn is_unaffected(&self, state: &State, execution: usize, call: &Call) -> bool {
        let others_delete = |wanted: Option<Deployment>| {
            (0..).zip(&self.scenario.plans).any(|(other, plan)| {
                other != execution
                    && plan.deletes()
                    && wanted.is_none_or(|deployment| plan.deployment() == deployment)
                    && !matches!(
                        state.executions[other].stage,
                        Stage::Ended(_) | Stage::Stopped
                    )
            })
        };
        let others_update = || {
            (0..)
                .zip(&self.scenario.plans)
                .any(|(other, plan)| other != execution && plan.updates_the_service())
        };
        match call {
            Call::ListTaskDefinitions | Call::DescribeTasks(_) | Call::GetSecretValue => true,
            Call::DescribeRules => !others_delete(None),
            Call::DescribeServices(_) if others_update() => false,
            Call::DescribeTargetHealth(deployment)
            | Call::DescribeServices(deployment)
            | Call::DescribeTargetGroups(deployment) => !others_delete(Some(*deployment)),
            _ => false,
        }
    }

    fn apply(&mut self, state: &State, step: Step) -> Result<State, String> {
        let mut state = state.clone();
        let execution = step.execution();
        let is_unaffected = self
            .next_call(&state, execution)
            .is_some_and(|call| self.is_unaffected(&state, execution, call));
        if self.scenario.preemptions.is_some() && !is_unaffected {
            if self.preempts(&state, execution) {
                state.preemptions -= 1;
            }
            state.last = execution;
        }
        match step {
            Step::Dies(execution) => {
                state.deaths -= 1;
                self.kill(&mut state, execution);
            }
            Step::AnswerLost(execution) => {
                state.deaths -= 1;
                let call = self.next_call(&state, execution).expect("a call").clone();
                state.world.answer(&call);
                self.kill(&mut state, execution);
            }
            Step::Proceeds(execution) => self.proceed(&mut state, execution),
            Step::Call(execution) => {
                let call = self.next_call(&state, execution).expect("a call").clone();
                let answer = state.world.answer(&call);
                self.resume(&mut state, execution, &call, &answer)?;
            }
            Step::FailsBefore(execution, code) => {
                state.failures -= 1;
                let call = self.next_call(&state, execution).expect("a call").clone();
                self.resume(&mut state, execution, &call, &Answer::Error(code))?;
            }
            Step::FailsAfter(execution) => {
                state.failures -= 1;
                let call = self.next_call(&state, execution).expect("a call").clone();
                state.world.answer(&call);
                let answer = Answer::Error("InternalFailure");
                self.resume(&mut state, execution, &call, &answer)?;
            }
        }
        if let Some(active) = state.world.default {
            state.named |= 1 << active;
        }
        self.end_waiting(&mut state);
        let announced: Vec<_> = state.executions.iter().map(|it| it.announced).collect();
        for (deployment, group) in (0..).zip(&mut state.world.groups) {
            group.marks &= !ANNOUNCED;
            if announced.contains(&Some(deployment)) {
                group.marks |= ANNOUNCED;
            }
        }
        Ok(state)
    }

    /// Goes on without a call.
    fn proceed(&mut self, state: &mut State, execution: usize) {
        let plan = self.scenario.plans[execution];
        let replaced = state.executions[execution].replaced;
        let group = state.world.group_mut(plan.deployment());
        state.executions[execution].stage = match state.executions[execution].stage {
            Stage::WaitingForTasks => {
                group.tasks = Tasks {
                    is_rolling: false,
                    ..group.tasks
                };
                let switch = plan.switch(&self.scenario.world, replaced);
                Stage::Switching(self.learned.begin(switch))
            }
            Stage::Asking(generations) => {
                group.asked |= generations & group.tasks.running();
                Stage::Ended(Ending::Asked)
            }
            _ => {
                group.marks &= !RESTORING;
                Stage::Ended(Ending::Drained)
            }
        };
    }

    fn kill(&mut self, state: &mut State, execution: usize) {
        let plan = self.scenario.plans[execution];
        let death = self.scenario.death.map(|(_, death)| death);
        state.executions[execution].stage = match (death, state.executions[execution].stage) {
            (Some(Death::Stopped), _) => Stage::Stopped,
            (Some(Death::GivenUp), Stage::Switching(_)) if plan.deletes() => {
                Stage::Undoing(self.learned.begin(plan.delete()))
            }
            (_, Stage::Switching(_)) => {
                let replaced = state.executions[execution].replaced;
                let switch = plan.switch(&self.scenario.world, replaced);
                Stage::Switching(self.learned.begin(switch))
            }
            (_, Stage::TakingBack(_)) => {
                let replaced = state.executions[execution].replaced;
                let take_back = plan.take_back(&self.scenario.world, replaced);
                Stage::TakingBack(self.learned.begin(take_back))
            }
            (_, Stage::Restoring(_)) => Stage::Restoring(self.learned.begin(plan.restore())),
            (_, Stage::Draining(_)) => Stage::Draining(self.learned.begin(plan.drain())),
            _ => Stage::Undoing(self.learned.begin(plan.delete())),
        };
        state.executions[execution].announced = None;
        end_flight(state, execution);
    }

    fn resume(
        &mut self,
        state: &mut State,
        execution: usize,
        call: &Call,
        answer: &Answer,
    ) -> Result<(), String> {
        let plan = self.scenario.plans[execution];
        let stage = state.executions[execution].stage;
        let Some(point) = stage.point() else {
            return Err("an execution calls while it waits".into());
        };
        let switches = matches!(stage, Stage::Switching(_));
        match (call, answer) {
            (Call::AddTags(deployment, marks), Answer::Done) if switches && marks & READY != 0 => {
                state.executions[execution].announced = Some(*deployment);
            }
            (Call::ListTasks(_), Answer::Running(generations)) => {
                state.executions[execution].listed = *generations;
            }
            _ => (),
        }
        let point = self.learned.after(point, answer);
        if matches!(call, Call::DescribeTags(_) | Call::ModifyListener(_)) {
            end_flight(state, execution);
        }
        let ending = match self.learned.next(point) {
            Next::Calls(_) => {
                state.executions[execution].stage = match stage {
                    Stage::Switching(_) => Stage::Switching(point),
                    Stage::TakingBack(_) => Stage::TakingBack(point),
                    Stage::Restoring(_) => Stage::Restoring(point),
                    Stage::Draining(_) => Stage::Draining(point),
                    _ => Stage::Undoing(point),
                };
                return Ok(());
            }
            Next::Ends(ending) => *ending,
        };
        end_flight(state, execution);
        if switches {
            state.executions[execution].switch = Some(ending);
            state.executions[execution].announced = None;
        }
        let replaced = state.executions[execution].replaced;
        let start_again = |learned: &mut Learned| match stage {
            Stage::Switching(_) => {
                Stage::Switching(learned.begin(plan.switch(&self.scenario.world, replaced)))
            }
            Stage::TakingBack(_) => {
                Stage::TakingBack(learned.begin(plan.take_back(&self.scenario.world, replaced)))
            }
            Stage::Restoring(_) => Stage::Restoring(learned.begin(plan.restore())),
            Stage::Draining(_) => Stage::Draining(learned.begin(plan.drain())),
            _ => Stage::Undoing(learned.begin(plan.delete())),
        };
        state.executions[execution].stage = match ending {
            Ending::Failed("TransientError") if self.learned.met_a_failure(point) => {
                start_again(&mut self.learned)
            }
            Ending::Failed("TransientError" | "UnexpectedError") => {
                return Err(format!("execution {execution} fails with {ending:?}"));
            }
            Ending::Restored { fresh, replaced } => {
                state.executions[execution].replaced = Some(replaced);
                if fresh {
                    Stage::WaitingForTasks
                } else {
                    let switch = plan.switch(&self.scenario.world, Some(replaced));
                    Stage::Switching(self.learned.begin(switch))
                }
            }
            Ending::Asked => Stage::Asking(state.executions[execution].listed),
            Ending::Deleting => Stage::Waiting(if self.scenario.undo_waits {
                self.in_flight(state, execution)
            } else {
                0
            }),
            Ending::Deleted => {
                let was_live = state.named & (1 << plan.deployment()) != 0;
                if was_live && !matches!(plan, Plan::CleanUp(_)) {
                    return Err(format!(
                        "deployment {} was undone after it was live",
                        plan.deployment()
                    ));
                }
                Stage::Ended(ending)
            }
            Ending::Superseded | Ending::Unhealthy | Ending::Failed(_)
                if switches && matches!(plan, Plan::Restore(_)) =>
            {
                let take_back = plan.take_back(&self.scenario.world, replaced);
                Stage::TakingBack(self.learned.begin(take_back))
            }
            Ending::Superseded | Ending::Unhealthy | Ending::Failed(_)
                if switches && plan.deletes() =>
            {
                Stage::Undoing(self.learned.begin(plan.delete()))
            }
            _ => Stage::Ended(ending),
        };
        Ok(())
    }

    /// The switches, as bits, that may still modify the listener by an earlier read.
    fn in_flight(&self, state: &State, but: usize) -> u8 {
        (0..state.executions.len())
            .filter(|other| *other != but)
            .filter(|other| match state.executions[*other].stage {
                Stage::Switching(point) => self.learned.acts_on_tags(point),
                _ => false,
            })
            .map(|other| 1 << other)
            .sum()
    }

    /// Resumes the undos whose wait is over; ECS has stopped their tasks meanwhile.
    fn end_waiting(&mut self, state: &mut State) {
        for (execution, plan) in self.scenario.plans.iter().enumerate() {
            if state.executions[execution].stage != Stage::Waiting(0) {
                continue;
            }
            let group = state.world.group_mut(plan.deployment());
            if group.service == Service::Draining {
                group.service = Service::Gone;
            }
            state.executions[execution].stage = Stage::Undoing(self.learned.begin(plan.delete()));
        }
    }

    fn check_end(&self, state: &State) -> Result<(), String> {
        let mut stopped = false;
        for execution in &state.executions {
            match execution.stage {
                Stage::Ended(_) => (),
                Stage::Stopped => stopped = true,
                stage => return Err(format!("an execution hangs: {stage:?}")),
            }
        }
        let world = &state.world;
        let given_up =
            matches!(self.scenario.death, Some((_, Death::GivenUp))) && state.deaths == 0;
        // An execution that is denied the modification after it has overwritten another's switch cannot
        // correct it.
        let refused = state
            .executions
            .iter()
            .any(|execution| matches!(execution.switch, Some(Ending::Failed(_))));
        if stopped || given_up {
            // The next switch corrects what these may leave. That the active deployment has healthy
            // targets was checked after every step.
            return Ok(());
        }
        let newest = (0..)
            .zip(&world.groups)
            .filter(|(_, group)| {
                group.healthy()
                    && group.marks & READY != 0
                    && group.marks & (ROLLED_BACK | DELETING) == 0
            })
            .filter(|(deployment, group)| {
                group.marks & DRAINING == 0 || world.default == Some(*deployment)
            })
            .map(|(deployment, _): (Deployment, _)| deployment)
            .max();
        if newest != world.default && !refused {
            return Err(format!(
                "the end is {:?}, the newest ready one {newest:?}",
                world.default
            ));
        }
        let Some(active) = world.default else {
            return Ok(());
        };
        if world.group(active).marks & (DELETING | ROLLED_BACK) != 0 {
            return Err(format!(
                "{active} is active and is rolled back or being deleted"
            ));
        }
        if world.group(active).marks & LIVE == 0 {
            return Err(format!("{active} is active and not marked as live"));
        }
        for (plan, execution) in self.scenario.plans.iter().zip(&state.executions) {
            if matches!(plan, Plan::Drain(_) | Plan::Forget(_)) {
                continue;
            }
            let own = plan.deployment();
            let live = matches!(
                execution.stage,
                Stage::Ended(Ending::Switched | Ending::Failed("DeploymentActiveError"))
            );
            let taken_back =
                |deployment: Deployment| world.group(deployment).marks & ROLLED_BACK != 0;
            let newer = active > own
                || (own + 1..)
                    .zip(&world.groups[usize::from(own) + 1..])
                    .any(|(d, _)| taken_back(d));
            if live && !newer && active != own && !taken_back(own) && !refused {
                return Err(format!("{own} ended as live, but {active} is active"));
            }
            if execution.switch == Some(Ending::Superseded) && !live && !newer {
                return Err(format!("{own} ended as superseded, but {active} is active"));
            }
            if active == own && !live && !refused && plan.switches() {
                return Err(format!(
                    "{own} is active, but ended as {:?}",
                    execution.stage
                ));
            }
        }
        Ok(())
    }

    /// Writes what does not hold, and the calls that led to it.
    fn report(&self, what: String, from: Option<(usize, Step)>) -> String {
        let mut path = Vec::new();
        let mut at = from;
        while let Some((state, step)) = at {
            path.push((state, step));
            at = self.came_from[state];
        }
        let mut report = format!("{}: {what}\n", self.scenario.name);
        for (number, (state, step)) in path.into_iter().rev().enumerate() {
            let state = &self.states[state];
            let execution = step.execution();
            let plan = self.scenario.plans[execution];
            let call = self.next_call(state, execution);
            let answer = call.map(|call| state.world.clone().answer(call));
            let (call, answer) = match (call, answer) {
                (Some(call), Some(answer)) => (format!("{call:?}"), format!("{answer:?}")),
                _ => Default::default(),
            };
            let kind = match step {
                Step::Call(_) => String::new(),
                other => format!("  {other:?}"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                report,
                "{:3}. {plan:?}: {call} -> {answer}{kind}",
                number + 1
            );
        }
        report
    }
}

/// Ends the wait of the undos for this execution's switch: it has acted on its read of the tags, or
/// never will.
fn end_flight(state: &mut State, execution: usize) {
    for other in &mut state.executions {
        if let Stage::Waiting(switches) = &mut other.stage {
            *switches &= !(1 << execution);
        }
    }
}

/// Checks what must hold after every step.
fn check(state: &State, failed: bool) -> Result<(), String> {
    let Some(active) = state.world.default else {
        return Ok(());
    };
    let group = state.world.group(active);
    if !group.healthy() {
        return Err(format!(
            "the default action names {active}, which has no healthy target"
        ));
    }
    if group.drains() {
        return Err(format!(
            "the default action names {active}, whose tasks were asked to drain"
        ));
    }
    if group.rules != 0b11 {
        return Err(format!("{active} is active and lost its rules"));
    }
    // An undo and a drain look at the ready tag to see a switch coming.
    if group.marks & READY == 0 {
        return Err(format!(
            "the default action names {active}, which was not announced"
        ));
    }
    // A run that removes the mark of a failed switch reads the listener again right after, and restores
    // the mark.
    if group.marks & LIVE == 0 && !failed {
        return Err(format!(
            "the default action names {active}, which is not marked as live"
        ));
    }
    Ok(())
}

/// The number of paths from the first state to an end. The graph has no cycles: runs only continue, and
/// deaths and failures are limited.
fn paths(edges: &[Vec<usize>]) -> f64 {
    let mut before = vec![0usize; edges.len()];
    for next in edges.iter().flatten() {
        before[*next] += 1;
    }
    let mut ways = vec![0.0; edges.len()];
    ways[0] = 1.0;
    let (mut ready, mut ends) = (vec![0], 0.0);
    while let Some(at) = ready.pop() {
        if edges[at].is_empty() {
            ends += ways[at];
        }
        for next in &edges[at] {
            ways[*next] += ways[at];
            before[*next] -= 1;
            if before[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    ends
}
