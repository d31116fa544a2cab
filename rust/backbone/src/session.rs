//! A link while it is up: what waits goes out, what is answered is told, and silence is noticed.
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanwire_core::Position;
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value, cmd};
use tokio::sync::mpsc;

use crate::api::{Event, Options, Refused};
use crate::asking::{Kept, SUBSCRIBE_MAX, error_of, since, subscribe, tops};
use crate::channels::Heard;
use crate::connection::{Dialer, told};
use crate::inbox::{Inbox, Publication, Question, Taken};
use crate::machines::{Machines, attend, listen, tell};
use crate::names::Names;
use crate::rounds::{Batch, Rounds, commands, go};
use crate::script::{Call, positions};
use crate::server::{MOVED, Server};
use crate::topology::{Topology, discover};
use crate::url::{Target, Way};

/// So many questions are asked at once.
const ASKED_MAX: usize = 16;
/// While a slot of a cluster moves, its calls are tried again after so long.
const MOVING: Duration = Duration::from_millis(50);
/// So long a link that ends takes at most to tell what it was told to.
const LAST_WORD: Duration = Duration::from_millis(250);
/// Sentinels or a cluster are asked again who has what, each so many pings.
const TOPOLOGY_PINGS: u64 = 10;

/// What a session works for, over reconnects.
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) names: Names,
    pub(crate) options: Options,
    pub(crate) tls: Option<tokio_rustls::TlsConnector>,
}

/// How a session ends.
#[derive(Debug)]
pub(crate) enum End {
    Stopped,
    /// Why, and what may still be published.
    Broken(String, Vec<Publication>),
}

/// What one server has to do.
#[derive(Debug, Default)]
struct Lane {
    rounds: Rounds,
    /// What is under way.
    round: Option<Vec<Batch>>,
    is_paused: bool,
    changes: VecDeque<(Box<str>, bool)>,
    is_subscribing: bool,
    /// When the pings were sent that have no answer, of the connection for commands and of the other.
    pings: [Option<Instant>; 2],
}

/// What has an answer.
enum Done {
    Round(usize, Result<Vec<Value>, RedisError>),
    Subscribed(usize, Vec<(Box<str>, bool)>, Result<Vec<Option<String>>, RedisError>),
    Tops(Vec<Box<str>>, Result<Vec<Result<Position, String>>, RedisError>),
    Since(u64, Result<Result<Kept, String>, RedisError>),
    Pong(usize, usize),
    Resume(usize),
    Topology(Result<Topology, String>),
    Told(Result<Vec<String>, RedisError>),
    Listened(Vec<(Box<str>, bool)>, Result<Vec<Option<String>>, RedisError>),
}

type Flight = Pin<Box<dyn Future<Output = Done>>>;

/// Connected to all servers.
pub(crate) struct Session<'a> {
    plan: &'a Plan,
    inbox: &'a Inbox,
    heard: &'a Arc<Heard>,
    names: Names,
    dialer: Dialer,
    ended: mpsc::Receiver<String>,
    topology: Topology,
    servers: Vec<Server>,
    lanes: Vec<Lane>,
    flights: FuturesUnordered<Flight>,
    questions: VecDeque<Question>,
    asked: HashMap<u64, Question>,
    asked_next: u64,
    machines: Machines,
    pings: u64,
}

impl<'a> Session<'a> {
    pub(crate) async fn connect(plan: &'a Plan, inbox: &'a Inbox, heard: &'a Arc<Heard>) -> Result<Self, String> {
        let options = &plan.options;
        let (tell_ended, ended) = mpsc::channel(8);
        let dialer = Dialer { tls: plan.tls.clone(), ended: tell_ended, within: options.silent_max };
        // A connection for a question ends unheard.
        let asker = Dialer { ended: mpsc::channel(1).0, ..dialer.clone() };
        let topology = discover(&asker, &plan.target, options.partitions).await?;
        let names = if topology.is_cluster { plan.names.spread(options.partitions) } else { plan.names.clone() };
        let mut servers = Vec::with_capacity(topology.servers.len());
        for address in &topology.servers {
            servers.push(Server::connect(&dialer, address, &plan.target.login, &names, heard).await?);
        }
        if let Some(machine) = options.machine {
            let connection = servers[topology.owners[0]].listening();
            let attending = attend(connection, &names, machine, topology.is_cluster);
            let attending = tokio::time::timeout(options.silent_max, attending).await;
            attending.unwrap_or_else(|_| Err(format!("no answer within {:?}", options.silent_max)))?;
        }
        let lanes = servers.iter().map(|_| Lane::default()).collect();
        Ok(Self {
            plan,
            inbox,
            heard,
            names,
            dialer: asker,
            ended,
            topology,
            servers,
            lanes,
            flights: FuturesUnordered::new(),
            questions: VecDeque::new(),
            asked: HashMap::new(),
            asked_next: 0,
            machines: Machines::default(),
            pings: 0,
        })
    }

    /// Until it is stopped or broken. `carried` goes before what waits.
    pub(crate) async fn run(mut self, carried: Vec<Publication>, is_stopping: &AtomicBool) -> End {
        self.heard.begin();
        let mut taken = self.inbox.take();
        drop(self.heard.apply(&mut taken));
        for channel in self.heard.wanted() {
            self.change(channel, true);
        }
        taken.patterns = self.heard.patterns().into_iter().map(|pattern| (pattern, true)).collect();
        carried.into_iter().for_each(|publication| self.publish(publication));
        self.accept(taken);
        let mut ticks = tokio::time::interval(self.plan.options.ping_every);
        let why = loop {
            self.set_going();
            let step = tokio::select! {
                () = self.inbox.rung() => {
                    if is_stopping.load(Ordering::Acquire) {
                        self.tell_the_last().await;
                        return End::Stopped;
                    }
                    self.take();
                    Ok(())
                }
                Some(done) = self.flights.next() => self.done(done),
                Some(why) = self.ended.recv() => Err(why),
                _ = ticks.tick() => self.tick(),
            };
            if let Err(why) = step {
                break why;
            }
        };
        // The connection's own end says more than what failed by it.
        let why = if why.starts_with(MOVED) { why } else { self.ended.try_recv().unwrap_or(why) };
        self.end(why)
    }

    fn lane_of(&mut self, channel: &str) -> &mut Lane {
        let server = self.server_of(channel);
        &mut self.lanes[server]
    }

    fn server_of(&self, channel: &str) -> usize {
        self.topology.owners[usize::from(self.names.partition_of(channel))]
    }

    fn publish(&mut self, publication: Publication) {
        self.lane_of(&publication.channel).rounds.push(publication);
    }

    fn change(&mut self, channel: Box<str>, is_wanted: bool) {
        self.lane_of(&channel).changes.push_back((channel, is_wanted));
    }

    fn take(&mut self) {
        let mut taken = self.inbox.take();
        for (channel, keep) in self.heard.apply(&mut taken) {
            self.change(channel, keep.is_some());
        }
        self.accept(taken);
    }

    fn accept(&mut self, taken: Taken) {
        taken.publications.into_iter().for_each(|publication| self.publish(publication));
        self.questions.extend(taken.questions);
        self.machines.push(taken.tellings, taken.patterns);
    }

    /// Where machines tell one another things.
    fn commands_of_machines(&self) -> MultiplexedConnection {
        self.servers[self.topology.owners[0]].commands()
    }

    /// That this machine goes is told, if that takes no time.
    async fn tell_the_last(&mut self) {
        self.machines.push(self.inbox.take().tellings, []);
        self.machines.told();
        if let Some(tellings) = self.machines.next_told() {
            let told = tell(self.commands_of_machines(), &self.names, &tellings, self.topology.is_cluster);
            drop(tokio::time::timeout(LAST_WORD, told).await);
        }
    }

    /// Begins all that can begin.
    fn set_going(&mut self) {
        for server in 0..self.servers.len() {
            if self.lanes[server].round.is_none() && !self.lanes[server].is_paused {
                self.begin_round(server);
            }
            if !self.lanes[server].is_subscribing {
                self.begin_subscribing(server);
            }
        }
        self.begin_telling();
        while self.asked.len() < ASKED_MAX
            && let Some(question) = self.questions.pop_front()
        {
            let (names, connection) = (self.names.clone(), self.servers[self.server_of(&question.channel)].commands());
            let (id, after, limit) = (self.asked_next, question.after, question.limit);
            let channel = question.channel.clone();
            self.asked_next += 1;
            self.asked.insert(id, question);
            self.flights.push(Box::pin(async move {
                Done::Since(id, since(connection, &names, &channel, after, limit).await)
            }));
        }
    }

    fn begin_telling(&mut self) {
        let is_sharded = self.topology.is_cluster;
        if let Some(tellings) = self.machines.next_told() {
            self.inbox.told(&tellings); // what is under way is bounded, and has no answer where the session ends
            let (names, connection) = (self.names.clone(), self.commands_of_machines());
            self.flights
                .push(Box::pin(async move { Done::Told(tell(connection, &names, &tellings, is_sharded).await) }));
        }
        let Some(patterns) = self.machines.next_listened() else { return };
        if is_sharded {
            self.machines.listened();
            for (pattern, _) in patterns.into_iter().filter(|(_, is_begun)| *is_begun) {
                let reason = "a cluster has no patterns of channels".to_owned();
                self.heard.tell(Event::Unheard { channel: pattern, reason });
            }
            return;
        }
        let (names, connection) = (self.names.clone(), self.servers[0].listening());
        self.flights.push(Box::pin(async move {
            let result = listen(connection, &names, &patterns).await;
            Done::Listened(patterns, result)
        }));
    }

    fn begin_round(&mut self, index: usize) {
        let (lane, server, options) = (&mut self.lanes[index], &self.servers[index], &self.plan.options);
        if lane.rounds.is_empty() {
            return;
        }
        let call = Call {
            names: &self.names,
            sha: &server.sha,
            run_id: &server.run_id,
            is_sharded: self.topology.is_cluster,
            unused_ms: options.unused_ms,
            idempotency_ms: options.idempotency_ms,
        };
        let must_load = std::mem::take(&mut lane.rounds.must_load);
        let round = lane.rounds.next();
        let commands = commands(&round, &call, must_load, |channel| self.heard.known(channel));
        lane.round = Some(round);
        let connection = server.commands();
        self.flights.push(Box::pin(async move { Done::Round(index, go(connection, commands, must_load).await) }));
    }

    fn begin_subscribing(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let count = lane.changes.len().min(SUBSCRIBE_MAX);
        if count == 0 {
            return;
        }
        let changes: Vec<_> = lane.changes.drain(..count).collect();
        for (channel, _) in changes.iter().filter(|(_, is_wanted)| !is_wanted) {
            self.heard.leave(channel);
        }
        lane.is_subscribing = true;
        let (names, connection) = (self.names.clone(), self.servers[index].listening());
        let is_sharded = self.topology.is_cluster;
        self.flights.push(Box::pin(async move {
            let result = subscribe(connection, &names, &changes, is_sharded).await;
            Done::Subscribed(index, changes, result)
        }));
    }

    fn done(&mut self, done: Done) -> Result<(), String> {
        match done {
            Done::Round(server, Ok(answers)) => return self.round_done(server, answers),
            Done::Subscribed(server, changes, Ok(refusals)) => return self.subscribed(server, changes, refusals),
            Done::Tops(channels, Ok(tops)) => return self.tops_known(channels, tops),
            Done::Since(id, Ok(answer)) => return self.since_known(id, answer),
            Done::Told(result) => {
                self.machines.told();
                self.heard.untold(&result.map_err(|error| told(&error))?);
            }
            Done::Listened(patterns, result) => {
                self.machines.listened();
                let refusals = result.map_err(|error| told(&error))?;
                for ((channel, _), refusal) in patterns.into_iter().zip(refusals) {
                    if let Some(reason) = refusal {
                        self.heard.tell(Event::Unheard { channel, reason });
                    }
                }
            }
            Done::Round(_, Err(error))
            | Done::Subscribed(_, _, Err(error))
            | Done::Tops(_, Err(error))
            | Done::Since(_, Err(error)) => return Err(told(&error)),
            Done::Pong(server, which) => self.lanes[server].pings[which] = None,
            Done::Resume(server) => self.lanes[server].is_paused = false,
            Done::Topology(Ok(topology)) if topology != self.topology => {
                let servers: Vec<_> = topology.servers.iter().map(ToString::to_string).collect();
                return Err(format!("{MOVED} the servers are now {}", servers.join(", ")));
            }
            Done::Topology(_) => {} // who cannot be asked now is asked again
        }
        Ok(())
    }

    fn round_done(&mut self, server: usize, answers: Vec<Value>) -> Result<(), String> {
        let round = self.lanes[server].round.take().unwrap_or_default();
        let mut broken = Ok(());
        for (batch, answer) in round.into_iter().zip(answers) {
            match positions(&answer, batch.len()) {
                Some(positions) => self.published(batch, &positions),
                None => {
                    let error = error_of(&answer).unwrap_or_else(|| format!("the script answered {answer:?}"));
                    if let Err(why) = self.refused(server, batch, error) {
                        broken = Err(why);
                    }
                }
            }
        }
        broken
    }

    fn published(&self, batch: Batch, positions: &[Position]) {
        self.inbox.settled(batch.len(), batch.iter().map(Publication::cost).sum());
        if let Some(&last) = positions.iter().max() {
            self.heard.learn(&batch[0].channel, last);
        }
        for (publication, &position) in batch.iter().zip(positions) {
            self.heard.tell(Event::Published { ticket: publication.ticket, result: Ok(position) });
        }
    }

    /// A call that the server did not do.
    fn refused(&mut self, server: usize, batch: Batch, error: String) -> Result<(), String> {
        let address = &self.servers[server].address;
        let code = error.split(' ').next().unwrap_or_default();
        match code {
            "NOSCRIPT" => {
                let rounds = &mut self.lanes[server].rounds;
                rounds.must_load = true;
                rounds.put_back(batch);
            }
            "ASK" | "TRYAGAIN" => {
                let lane = &mut self.lanes[server];
                lane.rounds.put_back(batch);
                lane.is_paused = true;
                self.flights.push(Box::pin(async move {
                    tokio::time::sleep(MOVING).await;
                    Done::Resume(server)
                }));
            }
            MOVED => {
                let why = format!("{MOVED} {address} has a slot no longer");
                self.lanes[server].rounds.put_back(batch);
                return Err(why);
            }
            "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" => {
                let why = format!("{address}: {error}");
                refuse(self.inbox, self.heard, batch, || Refused::Down(why.clone()));
                return Err(why);
            }
            "OOM" => refuse(self.inbox, self.heard, batch, || Refused::OutOfMemory(error.clone())),
            _ => refuse(self.inbox, self.heard, batch, || Refused::Server(error.clone())),
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        server: usize,
        changes: Vec<(Box<str>, bool)>,
        refusals: Vec<Option<String>>,
    ) -> Result<(), String> {
        self.lanes[server].is_subscribing = false;
        let mut subscribed = Vec::with_capacity(changes.len());
        for ((channel, is_wanted), refusal) in changes.into_iter().zip(refusals) {
            match refusal {
                Some(error) if error.starts_with(MOVED) => return Err(error),
                Some(reason) => self.heard.tell(Event::Unheard { channel, reason }),
                None if is_wanted => subscribed.push(channel),
                None => {}
            }
        }
        if subscribed.is_empty() {
            return Ok(());
        }
        let (names, connection) = (self.names.clone(), self.servers[server].commands());
        self.flights.push(Box::pin(async move {
            let result = tops(connection, &names, subscribed.iter().map(|channel| &**channel)).await;
            Done::Tops(subscribed, result)
        }));
        Ok(())
    }

    fn tops_known(&mut self, channels: Vec<Box<str>>, tops: Vec<Result<Position, String>>) -> Result<(), String> {
        for (channel, top) in channels.into_iter().zip(tops) {
            match top {
                Err(error) if error.starts_with(MOVED) => return Err(error),
                Err(reason) => self.heard.tell(Event::Unheard { channel, reason }),
                Ok(top) => {
                    if top.epoch > 0 {
                        self.heard.learn(&channel, top);
                    }
                    if self.heard.is_wanted(&channel) {
                        self.heard.tell(Event::Wanted { channel, top });
                    }
                }
            }
        }
        Ok(())
    }

    fn since_known(&mut self, id: u64, answer: Result<Kept, String>) -> Result<(), String> {
        let Some(question) = self.asked.remove(&id) else { return Ok(()) };
        match answer {
            Err(error) if error.starts_with(MOVED) => {
                self.asked.insert(id, question); // it is answered where the session ends
                return Err(error);
            }
            Err(error) => unanswered(self.inbox, self.heard, question, Refused::Server(error)),
            Ok(Kept { records, top, is_whole, foreign }) => {
                self.inbox.settled(1, question.cost());
                if let Some(reason) = foreign {
                    self.heard.foreign(&question.channel, reason);
                }
                let Question { channel, after, .. } = question;
                self.heard.tell(Event::Since { channel, after, records, top, is_whole });
            }
        }
        Ok(())
    }

    /// Pings, and looks whether the last were answered.
    fn tick(&mut self) -> Result<(), String> {
        self.heard.tick();
        let (now, silent_max) = (Instant::now(), self.plan.options.silent_max);
        for (index, (server, lane)) in self.servers.iter().zip(&mut self.lanes).enumerate() {
            for (which, connection) in [server.commands(), server.listening()].into_iter().enumerate() {
                if let Some(sent) = lane.pings[which] {
                    let heard = if which == 1 { server.heard_at().max(sent) } else { sent };
                    if now.saturating_duration_since(heard) >= silent_max {
                        return Err(format!("{}: nothing was heard for {silent_max:?}", server.address));
                    }
                    continue;
                }
                lane.pings[which] = Some(now);
                let mut connection = connection;
                self.flights.push(Box::pin(async move {
                    // A connection that has ended says so itself.
                    let _ = connection.send_packed_command(&cmd("PING")).await;
                    Done::Pong(index, which)
                }));
            }
        }
        self.pings += 1;
        let is_found = self.topology.is_cluster || matches!(self.plan.target.way, Way::Sentinel { .. });
        if is_found && self.pings.is_multiple_of(TOPOLOGY_PINGS) {
            let (dialer, target) = (self.dialer.clone(), self.plan.target.clone());
            let partitions = self.plan.options.partitions;
            self.flights.push(Box::pin(async move { Done::Topology(discover(&dialer, &target, partitions).await) }));
        }
        Ok(())
    }

    /// Everything that was under way is answered; what is only late is carried on.
    fn end(mut self, why: String) -> End {
        let mut carried = Vec::new();
        self.machines.give_up(self.inbox);
        for lane in &mut self.lanes {
            for batch in lane.round.take().into_iter().flatten() {
                refuse(self.inbox, self.heard, batch, || Refused::Unknown(why.clone()));
            }
            carried.extend(lane.rounds.drain());
        }
        for question in self.asked.drain().map(|(_, question)| question).chain(self.questions.drain(..)) {
            unanswered(self.inbox, self.heard, question, Refused::Down(why.clone()));
        }
        if !why.starts_with(MOVED) {
            refuse(self.inbox, self.heard, std::mem::take(&mut carried), || Refused::Down(why.clone()));
        }
        End::Broken(why, carried)
    }
}

/// Tells of publications that none of them has a position.
pub(crate) fn refuse(inbox: &Inbox, heard: &Heard, batch: Batch, why: impl Fn() -> Refused) {
    inbox.settled(batch.len(), batch.iter().map(Publication::cost).sum());
    for publication in &batch {
        heard.tell(Event::Published { ticket: publication.ticket, result: Err(why()) });
    }
}

/// Tells of a question that it has no answer.
pub(crate) fn unanswered(inbox: &Inbox, heard: &Heard, question: Question, refused: Refused) {
    inbox.settled(1, question.cost());
    let Question { channel, after, .. } = question;
    heard.tell(Event::SinceFailed { channel, after, refused });
}
