//! Explores every order of the calls of several executions.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;

use crate::call::{ANNOUNCED, Answer, Call, Deployment, READY, RESTORING, ROLLED_BACK, Service};
use crate::learned::{Defect, Deletion, Ending, Learned, Next, Point, Rollback};
use crate::promises::check;
use crate::scenario::{Death, Plan, Scenario, Work};
use crate::state::{Execution, Kind, Stage, State, Step};
use crate::world::World;

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
    /// Those of them in which every promise was checked: no execution was excused.
    pub checked: usize,
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

pub(crate) struct Exploration<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) learned: Learned,
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
                rollback: self.has_switched(*plan),
                announced: None,
                listed: 0,
                evicted: 0,
                switch: None,
                is_denied: false,
            })
            .collect();
        let named = self.scenario.world.default.map_or(0, |active| 1 << active);
        self.visit(
            State {
                world: self.scenario.world.clone(),
                executions,
                deaths: self.scenario.deaths(),
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
        let (mut edges, mut ends, mut checked) = (Vec::new(), 0, 0);
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
                let is_checked = self
                    .check_end(&state)
                    .map_err(|what| self.report(what, self.came_from[at]))?;
                checked += usize::from(is_checked);
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
            checked,
            points: self.learned.points(),
            calls: self.learned.calls,
        })
    }

    pub(crate) fn beginning(&mut self, plan: Plan) -> Stage {
        let work = match plan {
            Plan::Deploy(_) | Plan::Switch(_) => Work::Switching,
            Plan::RollBack(_) | Plan::Evict(_) => Work::Restoring { is_late: false },
            Plan::TakeAlong(_) => Work::Evicting,
            Plan::Drain(_) => Work::Draining,
            Plan::Forget(_) => return Stage::Forgetting,
            Plan::Split(_) => return Stage::Splitting,
            Plan::Undo(_) | Plan::CleanUp(_) | Plan::Expire(_) | Plan::DeleteByHand(_) => {
                Work::Undoing
            }
        };
        self.begin(plan, work, self.has_switched(plan))
    }

    /// What a rollback has found that has switched before everything begins.
    fn has_switched(&self, plan: Plan) -> Option<Rollback> {
        let groups = (0..).zip(&self.scenario.world.groups);
        let marked = groups.filter(|(_, group)| group.marks & ROLLED_BACK != 0);
        let taken_back = marked
            .map(|(deployment, _): (Deployment, _)| 1 << deployment)
            .sum();
        matches!(plan, Plan::TakeAlong(_)).then(|| Rollback::that_has_taken_back(taken_back))
    }

    fn begin(&mut self, plan: Plan, work: Work, rollback: Option<Rollback>) -> Stage {
        let invocation = plan.invocation(work, rollback);
        Stage::Runs(work, self.learned.begin(invocation))
    }

    /// The state machine invokes a function for that execution.
    fn invoke(&mut self, state: &State, execution: usize, work: Work) -> Stage {
        let rollback = state.executions[execution].rollback;
        self.begin(self.scenario.plans[execution], work, rollback)
    }

    fn visit(&mut self, state: State, from: Option<(usize, Step)>) -> Result<usize, String> {
        if let Some(known) = self.seen.get(&state) {
            return Ok(*known);
        }
        let is_clean = self.scenario.failures == state.failures && self.scenario.lost == state.lost;
        let may_lack_rules = self.may_have_lost_rules(&state);
        if let Err(what) = check(&state.world, is_clean, may_lack_rules) {
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
            let step = |kind| Step { execution, kind };
            if call.is_some_and(|call| self.is_unaffected(state, execution, call)) {
                // It commutes with every step of the others, so one order represents all.
                return vec![step(Kind::Call)];
            }
            if state.preemptions == 0 && self.preempts(state, execution) {
                continue;
            }
            // A switch that is tried again looks at the rules, and then at the listener, after its late change.
            let is_late = state.switches_late_to(execution).is_some();
            if is_late && matches!(call, Some(Call::DescribeRules)) {
                continue;
            }
            let stage = state.executions[execution].stage;
            let waits = match stage {
                // Fresh tasks take longer than a late change.
                Stage::WaitingForTasks => state.late.is_some(),
                Stage::WaitingForEvictions(evictions) => evictions != 0,
                Stage::WaitingToEvict => self.is_announced(state, execution),
                _ => false,
            };
            if stage.proceeds() && !waits {
                steps.push(step(Kind::Proceeds));
            }
            let kinds = call.map(|call| self.kinds(state, execution, call));
            steps.extend(kinds.into_iter().flatten().map(step));
        }
        let late = state.late.iter().map(|(execution, _)| *execution);
        steps.extend(late.map(|execution| Step {
            execution,
            kind: Kind::Lands,
        }));
        steps
    }

    /// What may become of a call.
    fn kinds(&self, state: &State, execution: usize, call: &Call) -> Vec<Kind> {
        let mut kinds = vec![Kind::Call];
        if call.writes() && state.failures > 0 {
            kinds.extend([
                Kind::FailsBefore("AccessDenied"),
                Kind::FailsBefore("InternalFailure"),
                Kind::FailsAfter,
            ]);
        }
        if call.writes() && state.lost > 0 {
            kinds.push(Kind::IsLate);
            if !self.has_one_attempt(execution, call) {
                kinds.push(Kind::Repeats);
            }
        }
        if self.may_die(state, execution) {
            kinds.extend([Kind::Dies, Kind::AnswerLost]);
        }
        kinds
    }

    /// Whether the code makes a single attempt: a switch to modify the listener, and an eviction to delete a rule.
    fn has_one_attempt(&self, execution: usize, call: &Call) -> bool {
        let evicts = self.scenario.plans[execution].evicts();
        matches!(call, Call::ModifyListener(_)) || evicts && matches!(call, Call::DeleteRule(..))
    }

    /// Whether a switch to what this execution is about to evict is in flight.
    fn is_announced(&self, state: &State, execution: usize) -> bool {
        let rollback = state.executions[execution].rollback;
        let evicts = rollback.map_or(0, |rollback| rollback.taken_back);
        let mut groups = (0..).zip(&state.world.groups);
        groups.any(|(it, group)| evicts & (1 << it) != 0 && group.marks & ANNOUNCED != 0)
    }

    /// Whether a function has died.
    pub(crate) fn has_died(&self, state: &State) -> bool {
        self.scenario.deaths() != state.deaths
    }

    fn may_die(&self, state: &State, execution: usize) -> bool {
        state.deaths > 0 && self.scenario.death.is_some_and(|(who, _)| who == execution)
    }

    /// Whether a call only reads a resource that no other execution can change any more.
    fn is_unaffected(&self, state: &State, execution: usize, call: &Call) -> bool {
        // A late change may land at any time.
        let is_late = state.late.is_some();
        let others_delete = |wanted: Option<Deployment>| {
            is_late
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
            is_late
                || (0..)
                    .zip(&self.scenario.plans)
                    .any(|(other, plan)| other != execution && plan.updates_the_service())
        };
        match call {
            Call::ListTaskDefinitions
            | Call::ListReleases
            | Call::DescribeTasks(_)
            | Call::ListStoppedTasks(_)
            | Call::GetSecretValue => true,
            Call::DescribeRules => {
                !others_delete(None) && !self.others_change_rules(state, execution, None)
            }
            Call::DescribeServices(_) if others_update() => false,
            Call::DescribeTargetHealth(deployment)
                if self.others_change_rules(state, execution, Some(*deployment)) =>
            {
                false
            }
            Call::DescribeTargetHealth(deployment)
            | Call::DescribeServices(deployment)
            | Call::DescribeTargetGroups(deployment) => !others_delete(Some(*deployment)),
            _ => false,
        }
    }

    /// Whether another execution may still evict that deployment, or any, or make its rules again.
    fn others_change_rules(
        &self,
        state: &State,
        execution: usize,
        wanted: Option<Deployment>,
    ) -> bool {
        let evicts = self.scenario.plans.iter().any(|it| it.evicts());
        let is_wanted = |deployment| wanted.is_none_or(|wanted| wanted == deployment);
        let mut others = state
            .executions
            .iter()
            .zip(&self.scenario.plans)
            .enumerate();
        evicts
            && others.any(|(number, (other, plan))| {
                // What it replaces is not known yet when it begins.
                let replaced = other.rollback.map_or(u8::MAX, |rollback| rollback.replaced);
                let may_evict =
                    plan.evicts() && (0..8).any(|it| replaced & (1 << it) != 0 && is_wanted(it));
                number != execution
                    && !matches!(other.stage, Stage::Ended(_) | Stage::Stopped)
                    && (may_evict || plan.rolls_back() && is_wanted(plan.deployment()))
            })
    }

    fn apply(&mut self, state: &State, step: Step) -> Result<State, String> {
        let mut state = state.clone();
        let execution = step.execution;
        let is_unaffected = self
            .next_call(&state, execution)
            .is_some_and(|call| self.is_unaffected(&state, execution, call));
        let lands = matches!(step.kind, Kind::Lands);
        if self.scenario.preemptions.is_some() && !is_unaffected && !lands {
            if self.preempts(&state, execution) {
                state.preemptions -= 1;
            }
            state.last = execution;
        }
        let call = self.next_call(&state, execution).cloned();
        let call = || call.clone().expect("a call");
        match step.kind {
            Kind::Dies => {
                state.deaths -= 1;
                self.kill(&mut state, execution);
            }
            Kind::AnswerLost => {
                state.deaths -= 1;
                self.change(&mut state, execution, &call())?;
                self.kill(&mut state, execution);
            }
            Kind::Proceeds => self.proceed(&mut state, execution),
            Kind::Call => {
                let answer = self.change(&mut state, execution, &call())?;
                self.resume(&mut state, execution, &call(), &answer)?;
            }
            Kind::FailsBefore(code) => {
                state.failures -= 1;
                self.resume(&mut state, execution, &call(), &Answer::Error(code))?;
            }
            Kind::FailsAfter => {
                state.failures -= 1;
                self.change(&mut state, execution, &call())?;
                self.resume(&mut state, execution, &call(), &NO_ANSWER)?;
            }
            Kind::Repeats => {
                state.lost -= 1;
                self.change(&mut state, execution, &call())?;
            }
            Kind::IsLate => {
                state.lost -= 1;
                state.late = Some((execution, call()));
                if self.has_one_attempt(execution, &call()) {
                    self.resume(&mut state, execution, &call(), &NO_ANSWER)?;
                }
            }
            Kind::Lands => {
                let (_, call) = state.late.take().expect("a late change");
                self.change(&mut state, execution, &call)?;
                if !self.acts_on_tags(&state, execution) {
                    end_flight(&mut state, execution);
                }
            }
        }
        for active in state.world.named() {
            state.named |= 1 << active;
        }
        self.end_waiting(&mut state);
        let late = (0..state.executions.len()).map(|it| state.switches_late_to(it));
        let announced = state.executions.iter().map(|it| it.announced);
        let announced: Vec<_> = announced.chain(late).collect();
        for (deployment, group) in (0..).zip(&mut state.world.groups) {
            group.marks &= !ANNOUNCED;
            if announced.contains(&Some(deployment)) {
                group.marks |= ANNOUNCED;
            }
        }
        Ok(state)
    }

    /// The answer to a call. With a defect, another call takes effect or none.
    pub(crate) fn answer(&self, point: Point, world: &mut World, call: &Call) -> Answer {
        match self.learned.made(point, call) {
            None => Answer::Done,
            Some(made) => world.answer(&made),
        }
    }

    /// Lets a call of an execution take effect.
    fn change(&self, state: &mut State, execution: usize, call: &Call) -> Result<Answer, String> {
        let plan = self.scenario.plans[execution];
        if let Call::AddTags(deployment, marks) = call {
            let group = state.world.group(*deployment);
            let is_first = group.exists && group.marks & READY == 0;
            if marks & READY != 0 && is_first && *deployment != plan.deployment() {
                return Err(format!(
                    "{plan:?} announces {deployment}, which was not ready"
                ));
            }
        }
        let answer = match state.executions[execution].stage.point() {
            Some(point) => self.answer(point, &mut state.world, call),
            // A late change of a function that has ended.
            None => state.world.answer(call),
        };
        if matches!((call, &answer), (Call::ModifyListener(_), Answer::Done)) {
            state.set_by = Some(execution);
        }
        Ok(answer)
    }

    /// Goes on without a call.
    fn proceed(&mut self, state: &mut State, execution: usize) {
        let deployment = self.scenario.plans[execution].deployment();
        let group = state.world.group_mut(deployment);
        let stage = match state.executions[execution].stage {
            Stage::MakingRules { are_started } => {
                if group.exists {
                    group.make_rules();
                }
                match are_started {
                    true => Stage::WaitingForTasks,
                    false => self.invoke(state, execution, Work::Restoring { is_late: false }),
                }
            }
            Stage::WaitingForEvictions(_) => {
                self.invoke(state, execution, Work::Restoring { is_late: true })
            }
            Stage::WaitingToEvict => self.invoke(state, execution, Work::Evicting),
            // It fails when its time is up.
            Stage::WaitingForTasks if group.tasks.wanted == 0 => {
                self.invoke(state, execution, Work::TakingBack { marked: false })
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
        let Stage::Runs(work, point) = stage else {
            return Err("an execution calls while it waits".into());
        };
        let switches = stage.switches();
        let begins_again = match call {
            Call::AddTags(_, marks) => marks & READY != 0,
            Call::ModifyListener(_) => true,
            _ => false,
        };
        if switches && matches!(call, Call::AddTags(..) | Call::ModifyListener(_)) {
            let is_denied = matches!(answer, Answer::Error("AccessDenied" | "InternalFailure"));
            // A tag that is set again after that is no other attempt.
            if is_denied || begins_again {
                state.executions[execution].is_denied = is_denied;
            }
        }
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
        if acts(call) || matches!(call, Call::DescribeTags(_)) {
            end_flight(state, execution);
        }
        let mut ending = match self.learned.next(point) {
            Next::Calls(_) => {
                state.executions[execution].stage = Stage::Runs(work, point);
                return Ok(());
            }
            Next::Ends(ending) => *ending,
        };
        end_flight(state, execution);
        let mut evicts = false;
        if let Ending::SwitchedBack(taken_back) = ending {
            let rollback = state.executions[execution].rollback.as_mut();
            rollback.expect("a rollback").taken_back = taken_back;
            evicts = plan.evicts();
            ending = Ending::Switched;
        }
        if switches {
            state.executions[execution].switch = Some(ending);
            state.executions[execution].announced = None;
        }
        let was_named = state.named & (1 << plan.deployment()) != 0;
        let stage = match ending {
            Ending::Failed("TransientError") if self.learned.met_a_failure(point) => {
                self.invoke(state, execution, work)
            }
            Ending::Failed("TransientError") if work == Work::Evicting => Stage::WaitingToEvict,
            // The rollback is done all the same.
            Ending::Failed(_) if work == Work::Evicting => Stage::Ended(Ending::Switched),
            Ending::Evicted(evicted) => {
                state.executions[execution].evicted = evicted;
                Stage::Ended(Ending::Switched)
            }
            Ending::Switched if evicts => self.invoke(state, execution, Work::Evicting),
            // The rules were deleted after the rollback had found them. It fails after its retries.
            Ending::Failed("TransientError")
                if switches && !state.world.group(plan.deployment()).is_pinned() =>
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
                pinned,
                rollback,
            } => {
                let first = state.executions[execution].rollback;
                let rollback = first.map_or(rollback, |first| first.after(rollback));
                state.executions[execution].rollback = Some(rollback);
                if unrouted && state.world.group(plan.deployment()).rules != 0 {
                    Stage::WaitingForEvictions(self.evictions_in_flight(state, execution))
                } else if fresh || !pinned {
                    let are_started = !unrouted;
                    Stage::MakingRules { are_started }
                } else {
                    self.invoke(state, execution, Work::Switching)
                }
            }
            Ending::LeftPinned(taken_back) => {
                let rollback = Rollback::that_has_taken_back(taken_back);
                state.executions[execution].rollback = Some(rollback);
                self.invoke(state, execution, Work::Evicting)
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
            // The rules were made again, and the target cannot be brought back any more.
            Ending::Failed(_)
                if matches!(work, Work::Restoring { .. })
                    && state.executions[execution].rollback.is_some() =>
            {
                self.invoke(state, execution, Work::TakingBack { marked: false })
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
            plan if plan.rolls_back() => {
                Some(self.invoke(state, execution, Work::TakingBack { marked: true }))
            }
            plan if plan.deletes() => Some(self.invoke(state, execution, Work::Undoing)),
            _ => None,
        }
    }

    /// The switches, as bits, that may still modify the listener by an earlier read.
    fn in_flight(&self, state: &State, but: usize) -> u8 {
        (0..state.executions.len())
            .filter(|other| *other != but)
            .filter(|other| {
                self.acts_on_tags(state, *other) || state.switches_late_to(*other).is_some()
            })
            .map(|other| 1 << other)
            .sum()
    }

    /// The evictions, as bits, that may still delete a rule by an earlier read.
    fn evictions_in_flight(&self, state: &State, but: usize) -> u8 {
        let acts = |it: usize| match state.executions[it].stage {
            Stage::Runs(Work::Evicting, point) => self.learned.acts_on_tags(point),
            _ => false,
        };
        let is_late =
            |it: usize| matches!(state.late, Some((by, Call::DeleteRule(..))) if by == it);
        (0..state.executions.len())
            .filter(|other| *other != but && (acts(*other) || is_late(*other)))
            .map(|other| 1 << other)
            .sum()
    }

    /// Whether the execution runs a switch that may modify the listener by an earlier read of the tags.
    fn acts_on_tags(&self, state: &State, execution: usize) -> bool {
        match state.executions[execution].stage {
            Stage::Runs(Work::Switching, point) => self.learned.acts_on_tags(point),
            _ => false,
        }
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
            state.executions[execution].stage = self.begin(*plan, Work::Undoing, None);
        }
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
            let execution = step.execution;
            let plan = self.scenario.plans[execution];
            let call = self.next_call(state, execution);
            let answer = call.map(|call| state.world.clone().answer(call));
            let (call, answer) = match (call, answer) {
                (Some(call), Some(answer)) => (format!("{call:?}"), format!("{answer:?}")),
                _ => Default::default(),
            };
            let kind = match step.kind {
                Kind::Call => String::new(),
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

/// What the code sees if no attempt of a call was answered.
const NO_ANSWER: Answer = Answer::Error("InternalFailure");

/// Ends the wait of the undos for this execution's switch: it has acted on its read of the tags, or
/// never will.
fn end_flight(state: &mut State, execution: usize) {
    if state
        .late
        .as_ref()
        .is_some_and(|(by, call)| *by == execution && acts(call))
    {
        return;
    }
    for other in &mut state.executions {
        if let Stage::Waiting(runs) | Stage::WaitingForEvictions(runs) = &mut other.stage {
            *runs &= !(1 << execution);
        }
    }
}

/// Whether others wait until this change has taken effect.
fn acts(call: &Call) -> bool {
    matches!(call, Call::ModifyListener(_) | Call::DeleteRule(..))
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
