//! Explores every order of the calls of several executions, and checks what must hold in all of them.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;

use crate::call::{
    ANNOUNCED, Answer, Call, DELETING, DRAINING, Deployment, LIVE, READY, RESTORING, ROLLED_BACK,
    Service,
};
use crate::learned::{Defect, Deletion, Ending, Invocation, Learned, Next, Point};
use crate::world::{Group, World};

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
    /// Rolls back: brings a deployment back, waits for its fresh tasks, if it gets some, and switches.
    RollBack(Deployment),
    /// Drains a deployment by one sweep.
    Drain(Deployment),
    /// Removes the mark of a rollback: an operator, or time.
    Forget(Deployment),
    /// Deletes a candidate that an execution left behind.
    Undo(Deployment),
    /// Deletes a deployment that was live and has drained.
    CleanUp(Deployment),
    /// Deletes a deployment whose time to drain is over: its tasks stop one after another.
    Expire(Deployment),
    /// An operator invokes the deletion of a deployment that was live.
    DeleteByHand(Deployment),
    /// An operator splits the traffic between the active deployment and this one, if that one is fit to get some.
    Split(Deployment),
}

impl Plan {
    fn deployment(self) -> Deployment {
        match self {
            Plan::Deploy(deployment)
            | Plan::Switch(deployment)
            | Plan::RollBack(deployment)
            | Plan::Drain(deployment)
            | Plan::Forget(deployment)
            | Plan::Undo(deployment)
            | Plan::CleanUp(deployment)
            | Plan::Expire(deployment)
            | Plan::DeleteByHand(deployment)
            | Plan::Split(deployment) => deployment,
        }
    }

    fn deletes(self) -> bool {
        self.deletion().is_some()
    }

    /// How it deletes.
    fn deletion(self) -> Option<Deletion> {
        match self {
            Plan::Deploy(_) | Plan::Undo(_) => Some(Deletion::Candidate),
            Plan::CleanUp(_) => Some(Deletion::Drained),
            Plan::Expire(_) => Some(Deletion::Forced),
            Plan::DeleteByHand(_) => Some(Deletion::ByHand),
            _ => None,
        }
    }

    /// Whether it may change the service other than by deleting it.
    fn updates_the_service(self) -> bool {
        matches!(self, Plan::RollBack(_) | Plan::Drain(_) | Plan::Expire(_))
    }

    fn switches(self) -> bool {
        matches!(self, Plan::Deploy(_) | Plan::Switch(_) | Plan::RollBack(_))
    }

    /// The invocation of a stage. `replaced` is what a rollback has found to replace, and `active` what was active
    /// when it began.
    fn invocation(
        self,
        stage: Work,
        replaced: Option<u8>,
        active: Option<Deployment>,
    ) -> Invocation {
        let deployment = self.deployment();
        match stage {
            Work::Restoring => Invocation::Restore { deployment },
            Work::Draining => Invocation::Drain { deployment },
            Work::Switching => Invocation::Switch {
                deployment,
                roll_back: replaced,
            },
            Work::TakingBack => Invocation::TakeBack {
                deployment,
                replaced: replaced.unwrap_or_default(),
                active,
            },
            Work::Undoing => Invocation::Delete {
                deployment,
                deletion: self.deletion().expect("a plan that deletes"),
            },
        }
    }
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
    /// How many changes may fail: with or without an effect, with an error that is worth a retry or one that is
    /// not.
    pub failures: u8,
    /// How many changes may take effect without an answer, at once or later than the next attempt.
    pub lost: u8,
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
            lost: 0,
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

    /// The same scenario in which that many changes may fail.
    pub fn failing(self, failures: u8) -> Scenario {
        Scenario { failures, ..self }
    }

    /// The same scenario in which the answers to that many changes may be lost.
    pub fn losing(self, lost: u8) -> Scenario {
        Scenario { lost, ..self }
    }
}

/// What a function of an execution does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    /// Finds the target of a rollback, and starts its fresh tasks.
    Restoring,
    Draining,
    Switching,
    /// Takes the marks of a failed rollback back.
    TakingBack,
    Undoing,
}

/// The progress of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// A function runs.
    Runs(Work, Point),
    /// The rollback makes the rules of its target again, in one step.
    MakingRules,
    /// Until the fresh tasks are healthy and the others have stopped.
    WaitingForTasks,
    /// The sweep has decided to ask these generations of tasks, as bits.
    Asking(u8),
    /// An operator, or time, removes the mark of a rollback.
    Forgetting,
    /// An operator splits the traffic.
    Splitting,
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
            Stage::Runs(_, point) => Some(point),
            _ => None,
        }
    }

    fn switches(self) -> bool {
        matches!(self, Stage::Runs(Work::Switching, _))
    }

    /// Whether the execution goes on without a call.
    fn proceeds(self) -> bool {
        matches!(
            self,
            Stage::MakingRules
                | Stage::WaitingForTasks
                | Stage::Asking(_)
                | Stage::Forgetting
                | Stage::Splitting
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Execution {
    stage: Stage,
    /// What its rollback replaces, and what was active when it began.
    replaced: Option<u8>,
    active: Option<Deployment>,
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
    lost: u8,
    /// A change whose caller does not wait for it any more, and that will take effect.
    late: Option<(usize, Call)>,
    /// The execution that has set the default action.
    set_by: Option<usize>,
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
    /// The change takes effect, its answer is lost, and the SDK makes the next attempt.
    Repeats(usize),
    /// The same, but the change takes effect later.
    IsLate(usize),
    /// The late change takes effect.
    Lands(usize),
}

impl Step {
    fn execution(self) -> usize {
        match self {
            Step::Call(execution)
            | Step::Proceeds(execution)
            | Step::AnswerLost(execution)
            | Step::FailsBefore(execution, _)
            | Step::FailsAfter(execution)
            | Step::Dies(execution)
            | Step::Repeats(execution)
            | Step::IsLate(execution)
            | Step::Lands(execution) => execution,
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
pub fn explore(scenario: &Scenario, defect: Option<Defect>) -> Result<Explored, String> {
    Exploration {
        scenario,
        learned: Learned::new(defect),
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
                stage: self.beginning(*plan),
                replaced: None,
                active: None,
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
                lost: self.scenario.lost,
                late: None,
                set_by: None,
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
        let schedules = paths(&edges)
            .ok_or_else(|| format!("{}: an execution never ends", self.scenario.name))?;
        Ok(Explored {
            states: self.states.len(),
            steps: edges.iter().map(Vec::len).sum(),
            schedules,
            ends,
            points: self.learned.points(),
            calls: self.learned.calls,
        })
    }

    fn beginning(&mut self, plan: Plan) -> Stage {
        let work = match plan {
            Plan::Deploy(_) | Plan::Switch(_) => Work::Switching,
            Plan::RollBack(_) => Work::Restoring,
            Plan::Drain(_) => Work::Draining,
            Plan::Forget(_) => return Stage::Forgetting,
            Plan::Split(_) => return Stage::Splitting,
            Plan::Undo(_) | Plan::CleanUp(_) | Plan::Expire(_) | Plan::DeleteByHand(_) => {
                Work::Undoing
            }
        };
        self.begin(plan, work, None, None)
    }

    fn begin(
        &mut self,
        plan: Plan,
        work: Work,
        replaced: Option<u8>,
        active: Option<Deployment>,
    ) -> Stage {
        let invocation = plan.invocation(work, replaced, active);
        Stage::Runs(work, self.learned.begin(invocation))
    }

    /// The state machine invokes a function for that execution.
    fn invoke(&mut self, state: &State, execution: usize, work: Work) -> Stage {
        let Execution {
            replaced, active, ..
        } = state.executions[execution];
        self.begin(self.scenario.plans[execution], work, replaced, active)
    }

    fn visit(&mut self, state: State, from: Option<(usize, Step)>) -> Result<usize, String> {
        if let Some(known) = self.seen.get(&state) {
            return Ok(*known);
        }
        let is_clean = self.scenario.failures == state.failures && self.scenario.lost == state.lost;
        if let Err(what) = check(&state.world, is_clean) {
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
            let stage = state.executions[execution].stage;
            // Fresh tasks take longer than a late change.
            let waits = stage == Stage::WaitingForTasks && state.late.is_some();
            if stage.proceeds() && !waits {
                steps.push(Step::Proceeds(execution));
            }
            let Some(call) = call else {
                continue;
            };
            steps.push(Step::Call(execution));
            if call.writes() && state.failures > 0 {
                steps.extend([
                    Step::FailsBefore(execution, "AccessDenied"),
                    Step::FailsBefore(execution, "InternalFailure"),
                    Step::FailsAfter(execution),
                ]);
            }
            // The switch makes one attempt to modify the listener, and waits for it to land: `FailsAfter`.
            let is_repeated = call.writes() && !matches!(call, Call::ModifyListener(_));
            if is_repeated && state.lost > 0 {
                steps.extend([Step::Repeats(execution), Step::IsLate(execution)]);
            }
            if self.may_die(state, execution) {
                steps.push(Step::Dies(execution));
                steps.push(Step::AnswerLost(execution));
            }
        }
        steps.extend(
            state
                .late
                .iter()
                .map(|(execution, _)| Step::Lands(*execution)),
        );
        steps
    }

    fn may_die(&self, state: &State, execution: usize) -> bool {
        state.deaths > 0 && self.scenario.death.is_some_and(|(who, _)| who == execution)
    }

    /// Whether a call only reads a resource that no other execution can change any more.
    fn is_unaffected(&self, state: &State, execution: usize, call: &Call) -> bool {
        // It may land at any time.
        let is_late = |change: fn(&Call) -> bool| state.late.iter().any(|(_, call)| change(call));
        let others_delete = |wanted: Option<Deployment>| {
            is_late(Call::writes)
                || (0..).zip(&self.scenario.plans).any(|(other, plan)| {
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
            is_late(Call::writes)
                || (0..)
                    .zip(&self.scenario.plans)
                    .any(|(other, plan)| other != execution && plan.updates_the_service())
        };
        match call {
            Call::ListTaskDefinitions
            | Call::DescribeTasks(_)
            | Call::ListStoppedTasks(_)
            | Call::GetSecretValue => true,
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
        let call = self.next_call(&state, execution).cloned();
        let call = || call.clone().expect("a call");
        match step {
            Step::Dies(execution) => {
                state.deaths -= 1;
                self.kill(&mut state, execution);
            }
            Step::AnswerLost(execution) => {
                state.deaths -= 1;
                self.change(&mut state, execution, &call())?;
                self.kill(&mut state, execution);
            }
            Step::Proceeds(execution) => self.proceed(&mut state, execution),
            Step::Call(execution) => {
                let answer = self.change(&mut state, execution, &call())?;
                self.resume(&mut state, execution, &call(), &answer)?;
            }
            Step::FailsBefore(execution, code) => {
                state.failures -= 1;
                self.resume(&mut state, execution, &call(), &Answer::Error(code))?;
            }
            Step::FailsAfter(execution) => {
                state.failures -= 1;
                self.change(&mut state, execution, &call())?;
                self.resume(&mut state, execution, &call(), &NO_ANSWER)?;
            }
            Step::Repeats(execution) => {
                state.lost -= 1;
                self.change(&mut state, execution, &call())?;
            }
            Step::IsLate(execution) => {
                state.lost -= 1;
                state.late = Some((execution, call()));
            }
            Step::Lands(execution) => {
                let (_, call) = state.late.take().expect("a late change");
                self.change(&mut state, execution, &call)?;
            }
        }
        for active in state.world.named() {
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

    /// Lets a call take effect, unless the code that runs does not make it.
    fn change(&self, state: &mut State, execution: usize, call: &Call) -> Result<Answer, String> {
        let plan = self.scenario.plans[execution];
        if self.learned.omits(call) {
            return Ok(Answer::Done);
        }
        if let Call::AddTags(deployment, marks) = call {
            let group = state.world.group(*deployment);
            let is_first = group.exists && group.marks & READY == 0;
            if marks & READY != 0 && is_first && *deployment != plan.deployment() {
                return Err(format!(
                    "{plan:?} announces {deployment}, which was not ready"
                ));
            }
        }
        let answer = state.world.answer(call);
        if matches!((call, &answer), (Call::ModifyListener(_), Answer::Done)) {
            state.set_by = Some(execution);
        }
        Ok(answer)
    }

    /// Goes on without a call.
    fn proceed(&mut self, state: &mut State, execution: usize) {
        let deployment = self.scenario.plans[execution].deployment();
        let late = state.late.as_ref().map(|(_, call)| call);
        let is_late_deletion = matches!(late, Some(Call::DeleteRule(it, _)) if *it == deployment);
        let group = state.world.group_mut(deployment);
        let stage = match state.executions[execution].stage {
            Stage::MakingRules => {
                if group.exists {
                    group.rules = 0b11;
                }
                // New rules have new ARNs, so a late deletion finds none.
                if is_late_deletion {
                    state.late = None;
                }
                self.invoke(state, execution, Work::Restoring)
            }
            // It fails when its time is up.
            Stage::WaitingForTasks if group.tasks.wanted == 0 => {
                self.invoke(state, execution, Work::TakingBack)
            }
            Stage::WaitingForTasks => {
                group.tasks.oldest = group.tasks.newest;
                self.invoke(state, execution, Work::Switching)
            }
            Stage::Asking(generations) => {
                group.asked |= generations & group.tasks.running();
                Stage::Ended(Ending::Asked)
            }
            Stage::Splitting => {
                if group.is_fit() && state.world.default != Some(deployment) {
                    state.world.also = Some(deployment);
                    state.set_by = Some(execution);
                }
                Stage::Ended(Ending::Drained)
            }
            _ => {
                group.marks &= !RESTORING;
                Stage::Ended(Ending::Drained)
            }
        };
        state.executions[execution].stage = stage;
    }

    fn kill(&mut self, state: &mut State, execution: usize) {
        let plan = self.scenario.plans[execution];
        let death = self.scenario.death.map(|(_, death)| death);
        let stage = match (death, state.executions[execution].stage) {
            (Some(Death::Stopped), _) => Stage::Stopped,
            (Some(Death::GivenUp), stage) if stage.switches() && plan.deletes() => {
                self.invoke(state, execution, Work::Undoing)
            }
            (_, Stage::Runs(work, _)) => self.invoke(state, execution, work),
            (_, stage) => stage,
        };
        state.executions[execution].stage = stage;
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
        let Stage::Runs(work, _) = stage else {
            return Err("an execution calls while it waits".into());
        };
        let switches = stage.switches();
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
                state.executions[execution].stage = Stage::Runs(work, point);
                return Ok(());
            }
            Next::Ends(ending) => *ending,
        };
        end_flight(state, execution);
        if switches {
            state.executions[execution].switch = Some(ending);
            state.executions[execution].announced = None;
        }
        let was_named = state.named & (1 << plan.deployment()) != 0;
        let stage = match ending {
            Ending::Failed("TransientError") if self.learned.met_a_failure(point) => {
                self.invoke(state, execution, work)
            }
            // The rules were deleted after the rollback had found them. It fails after its retries.
            Ending::Failed("TransientError")
                if switches && state.world.group(plan.deployment()).rules != 0b11 =>
            {
                let next = self.after_a_failed_switch(state, execution);
                next.unwrap_or(Stage::Ended(ending))
            }
            Ending::Failed("TransientError" | "UnexpectedError") => {
                return Err(format!("execution {execution} fails with {ending:?}"));
            }
            Ending::Restored {
                unrouted,
                fresh,
                replaced,
                active,
            } => {
                state.executions[execution].replaced = Some(replaced);
                state.executions[execution].active = active;
                if unrouted {
                    Stage::MakingRules
                } else if fresh {
                    Stage::WaitingForTasks
                } else {
                    self.invoke(state, execution, Work::Switching)
                }
            }
            Ending::Asked => Stage::Asking(state.executions[execution].listed),
            Ending::Deleting => Stage::Waiting(if self.scenario.undo_waits {
                self.in_flight(state, execution)
            } else {
                0
            }),
            Ending::Deleted if was_named && plan.deletion() == Some(Deletion::Candidate) => {
                return Err(format!(
                    "deployment {} was undone after it was live",
                    plan.deployment()
                ));
            }
            Ending::Superseded | Ending::Unhealthy | Ending::Failed(_) if switches => {
                let next = self.after_a_failed_switch(state, execution);
                next.unwrap_or(Stage::Ended(ending))
            }
            _ => Stage::Ended(ending),
        };
        state.executions[execution].stage = stage;
        Ok(())
    }

    /// What the state machine does next: a rollback takes its marks back, and a deployment is undone.
    fn after_a_failed_switch(&mut self, state: &State, execution: usize) -> Option<Stage> {
        match self.scenario.plans[execution] {
            Plan::RollBack(_) => Some(self.invoke(state, execution, Work::TakingBack)),
            plan if plan.deletes() => Some(self.invoke(state, execution, Work::Undoing)),
            _ => None,
        }
    }

    /// The switches, as bits, that may still modify the listener by an earlier read.
    fn in_flight(&self, state: &State, but: usize) -> u8 {
        (0..state.executions.len())
            .filter(|other| *other != but)
            .filter(|other| match state.executions[*other].stage {
                Stage::Runs(Work::Switching, point) => self.learned.acts_on_tags(point),
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
            state.executions[execution].stage = self.begin(*plan, Work::Undoing, None, None);
        }
    }

    fn check_end(&mut self, state: &State) -> Result<(), String> {
        for execution in &state.executions {
            if !matches!(execution.stage, Stage::Ended(_) | Stage::Stopped) {
                return Err(format!("an execution hangs: {:?}", execution.stage));
            }
        }
        self.check_next(state)?;
        let mut world = state.world.clone();
        if let Some(active) = world.default
            && state.lost < self.scenario.lost
        {
            // A mark may have landed after it was taken back. The cleanup removes it.
            world.group_mut(active).marks &= !(DELETING | ROLLED_BACK);
        }
        let world = &world;
        let newest = newest_ready(world);
        // One that could not go on to the end cannot correct what it has done. That the next one does was
        // checked above.
        let is_excused = |execution: usize| self.could_not_go_on(state, execution);
        let concerns_newest = |(number, plan): (usize, &Plan)| {
            let replaced = state.executions[number].replaced.unwrap_or_default();
            let is_concerned =
                |it: Deployment| plan.deployment() == it || replaced & (1 << it) != 0;
            is_excused(number) && newest.is_some_and(is_concerned)
        };
        let excused = state.set_by.is_some_and(is_excused)
            || self.scenario.plans.iter().enumerate().any(concerns_newest);
        if excused {
            return Ok(());
        }
        if newest != world.default {
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
        for (number, plan) in self.scenario.plans.iter().enumerate() {
            if plan.switches() && !is_excused(number) {
                self.check_ending(state, number, active)?;
            }
        }
        Ok(())
    }

    /// Whether what an execution has reported is true.
    fn check_ending(&self, state: &State, number: usize, active: Deployment) -> Result<(), String> {
        let (world, execution) = (&state.world, &state.executions[number]);
        let own = self.scenario.plans[number].deployment();
        let live = matches!(
            execution.stage,
            Stage::Ended(Ending::Switched | Ending::Failed("DeploymentActiveError"))
        );
        let taken_back = |deployment: Deployment| world.group(deployment).marks & ROLLED_BACK != 0;
        let newer = active > own
            || (own + 1..)
                .zip(&world.groups[usize::from(own) + 1..])
                .any(|(d, _)| taken_back(d));
        if live && !newer && active != own && !taken_back(own) {
            return Err(format!("{own} ended as live, but {active} is active"));
        }
        if execution.switch == Some(Ending::Superseded) && !live && !newer {
            return Err(format!("{own} ended as superseded, but {active} is active"));
        }
        // A second rollback to it is refused.
        if active == own && !live && execution.switch.is_some() {
            return Err(format!(
                "{own} is active, but ended as {:?}",
                execution.stage
            ));
        }
        Ok(())
    }

    /// Whether an execution was stopped, given up, or denied its switch, or is an operator's.
    fn could_not_go_on(&self, state: &State, number: usize) -> bool {
        let execution = &state.executions[number];
        let given_up = match self.scenario.death {
            Some((who, Death::GivenUp)) => who == number && state.deaths == 0,
            _ => false,
        };
        given_up
            || execution.stage == Stage::Stopped
            || matches!(execution.switch, Some(Ending::Failed(_)))
            || matches!(self.scenario.plans[number], Plan::Split(_))
    }

    /// Whatever has happened, the next deployment goes live.
    fn check_next(&mut self, state: &State) -> Result<(), String> {
        let mut world = state.world.clone();
        for group in &mut world.groups {
            group.marks &= !ANNOUNCED;
        }
        let next = Deployment::try_from(world.groups.len()).expect("a few deployments");
        world.groups.push(Group::with(0));
        let plan = Plan::Deploy(next);
        let Stage::Runs(_, mut point) = self.beginning(plan) else {
            unreachable!("it begins with the switch");
        };
        let ending = loop {
            let call = match self.learned.next(point) {
                Next::Calls(call) => call.clone(),
                Next::Ends(ending) => break *ending,
            };
            let answer = if self.learned.omits(&call) {
                Answer::Done
            } else {
                world.answer(&call)
            };
            check(&world, false)?;
            point = self.learned.after(point, &answer);
        };
        if (ending, world.default, world.also) != (Ending::Switched, Some(next), None) {
            return Err(format!(
                "the next deployment ends as {ending:?}, and {:?} is active",
                world.default
            ));
        }
        check(&world, true)
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

/// The newest deployment that the default action may name.
fn newest_ready(world: &World) -> Option<Deployment> {
    let is_ready = |deployment: Deployment, group: &Group| {
        group.healthy()
            && group.marks & READY != 0
            && group.marks & (ROLLED_BACK | DELETING) == 0
            && (group.marks & DRAINING == 0 || world.default == Some(deployment))
    };
    (0..)
        .zip(&world.groups)
        .filter(|(deployment, group)| is_ready(*deployment, group))
        .map(|(deployment, _)| deployment)
        .max()
}

/// What the code sees if no attempt of a call was answered.
const NO_ANSWER: Answer = Answer::Error("InternalFailure");

/// Ends the wait of the undos for this execution's switch: it has acted on its read of the tags, or
/// never will.
fn end_flight(state: &mut State, execution: usize) {
    for other in &mut state.executions {
        if let Stage::Waiting(switches) = &mut other.stage {
            *switches &= !(1 << execution);
        }
    }
}

/// Checks what must hold after every step. `is_clean` says that no call has failed.
fn check(world: &World, is_clean: bool) -> Result<(), String> {
    for active in world.named() {
        let group = world.group(active);
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
        if group.marks & LIVE == 0 && is_clean {
            return Err(format!(
                "the default action names {active}, which is not marked as live"
            ));
        }
    }
    Ok(())
}

/// The number of paths from the first state to an end. `None` if the executions can go round in circles.
fn paths(edges: &[Vec<usize>]) -> Option<f64> {
    let mut before = vec![0usize; edges.len()];
    for next in edges.iter().flatten() {
        before[*next] += 1;
    }
    let mut ways = vec![0.0; edges.len()];
    ways[0] = 1.0;
    let mut ready: Vec<usize> = (0..1).filter(|first| before[*first] == 0).collect();
    let (mut met, mut ends) = (0, 0.0);
    while let Some(at) = ready.pop() {
        met += 1;
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
    (met == edges.len()).then_some(ends)
}
