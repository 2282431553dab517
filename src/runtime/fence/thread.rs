//! The thread of the fence. From its first turn on it allocates nothing, frees nothing, writes no log and waits for nobody:
//! the host may be short of memory, of processors and of disks when it is due.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::{Heard, Line, Sent};
use super::shared::{Bell, Fenced, Shared, Wish};
use crate::base::Machine;
use crate::cores::redis::fence::{Doors, Fence, Input, OUTPUTS_MAX, Output, Phase, Status, Term};
use crate::runtime::clock;
use crate::runtime::realtime::{self, Rank};
use crate::runtime::timer::Timer;

/// Of its stack: what it takes, several times over.
const STACK: usize = 192 * 1024;
/// So much of the stack is had before it is needed. A turn takes some KiB.
const STACK_TOUCHED: usize = 64 * 1024;
/// If there is no timer to be had of the kernel.
const TURN_MAX: u16 = 5;

pub(super) struct Thread {
    shared: Arc<Shared>,
    /// Of the guard, which sleeps while nothing is open.
    guard: Option<Arc<Bell>>,
    /// What the guard was let know last.
    open: bool,
    machine: Fence,
    /// Kept for its capacity.
    out: Vec<Output>,
    process: Option<Fenced>,
    line: Line,
    lease: Option<Term>,
    told: Status,
    timer: Timer,
    stop: bool,
}

/// Starts the thread. What it could not have is said: it works without, later than it should when the host is short of it.
pub(super) fn start(shared: Arc<Shared>, guard: Option<Arc<Bell>>) -> io::Result<Vec<String>> {
    let timer = Timer::new()?;
    let mut thread = Thread {
        shared,
        guard,
        open: false,
        machine: Fence::default(),
        out: Vec::with_capacity(OUTPUTS_MAX),
        process: None,
        line: Line::default(),
        lease: None,
        told: Status::default(),
        timer,
        stop: false,
    };
    let (say, said) = std::sync::mpsc::channel();
    let work = move || {
        let raised = realtime::raise(Rank::Fence).err().map(|error| error.to_string());
        touch_the_stack();
        let locked = realtime::lock_memory().err().map(|error| error.to_string());
        // Whoever starts it waits for that.
        let _ = say.send([raised, locked]);
        drop(say);
        while !thread.turn() {
            thread.wait();
        }
    };
    std::thread::Builder::new().name("vigie-fence".to_owned()).stack_size(STACK).spawn(work)?;
    let handicaps = said.recv().map_err(|_| io::Error::other("the thread of the fence ended at its start"))?;
    Ok(handicaps.into_iter().flatten().collect())
}

/// Has the kernel give the pages of the stack, so that they can be locked.
#[inline(never)]
fn touch_the_stack() {
    let pages = [0_u8; STACK_TOUCHED];
    std::hint::black_box(&pages);
}

impl Thread {
    /// Takes in all that waits, and then does what is due. Whether the thread is to end.
    fn turn(&mut self) -> bool {
        // Before what redis says: how that is taken depends on the lease.
        self.look_at_the_lease();
        // And that before its end: what it has said was said.
        while let Some(heard) = self.line.hear() {
            self.feed(match heard {
                Heard::Connected => Input::Connected,
                Heard::Reply { number, outcome } => Input::Reply { number, outcome },
                Heard::Broken => Input::Broken,
            });
        }
        if self.process.as_ref().is_some_and(|process| process.held.ended()) {
            self.feed(Input::Ended);
            self.process = None;
        }
        self.take_orders();
        self.feed(Input::Tick);
        let status = self.machine.status();
        if status != self.told {
            self.told = status;
            self.shared.tell(status);
        }
        self.stop && status.phase == Phase::Closed
    }

    fn look_at_the_lease(&mut self) {
        let lease = self.shared.page.lease();
        if lease != self.lease {
            self.lease = lease;
            self.feed(Input::Lease(lease));
        }
    }

    fn take_orders(&mut self) {
        self.shared.bell.hush();
        let (process, wish) = match self.shared.orders.try_lock() {
            Ok(mut orders) => {
                self.stop = orders.stop;
                (orders.process.take(), orders.wish.take())
            }
            Err(TryLockError::Poisoned(orders)) => {
                let mut orders = orders.into_inner();
                self.stop = orders.stop;
                (orders.process.take(), orders.wish.take())
            }
            // Whoever is in the middle of one rings when it is there.
            Err(TryLockError::WouldBlock) => (None, None),
        };
        if let Some(process) = process {
            // The one before is still at hand: it may have to be killed.
            self.feed(Input::Process(process.incarnation));
            self.process = Some(process);
            // It has not been told of the lease of this one.
            self.lease = None;
        }
        self.look_at_the_lease();
        match wish {
            Some((order, Wish::Open { by, epoch, setting })) => {
                self.feed(Input::Open { order, by, epoch, setting });
            }
            Some((order, Wish::Close)) => self.feed(Input::Close { order }),
            None => {}
        }
    }

    fn feed(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let mut out = mem::take(&mut self.out);
            self.machine.handle(clock::now(), input, &mut out);
            for output in out.drain(..) {
                next = self.carry_out(output).or(next);
            }
            self.out = out;
        }
    }

    /// Some: what came of it.
    fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Connect => {
                let process = self.process.as_ref()?;
                self.line.connect(process.address, &process.password).is_err().then_some(Input::Broken)
            }
            Output::Disconnect => {
                self.line.end();
                None
            }
            Output::Send { number, command } => match self.line.send(number, command) {
                Sent::Whole => None,
                Sent::InPart => Some(Input::Broken),
                Sent::Nothing => Some(Input::Unsent),
            },
            Output::Doors(doors) => {
                self.shared.page.set_doors(doors);
                let open = matches!(doors, Doors::Open(_));
                let opens = !mem::replace(&mut self.open, open) && open;
                if opens && let Some(guard) = &self.guard {
                    guard.ring();
                }
                None
            }
            Output::Kill => {
                self.kill();
                None
            }
        }
    }

    fn kill(&self) {
        let Some(process) = &self.process else { return };
        if process.held.kill_group().is_err() && !process.held.ended() {
            // It may not be killed by this process; but the kernel kills it with this process.
            std::process::abort();
        }
    }

    fn wait(&mut self) {
        let deadline = self.machine.deadline();
        let timeout = if self.timer.set(deadline).is_ok() { PollTimeout::NONE } else { PollTimeout::from(TURN_MAX) };
        let mut waited = heapless::Vec::<PollFd<'_>, 4>::new();
        let process = self.process.as_ref().map(|process| (process.held.as_fd(), PollFlags::POLLIN));
        let always = [self.shared.bell.as_fd(), self.timer.as_fd()].map(|fd| Some((fd, PollFlags::POLLIN)));
        for (fd, flags) in always.into_iter().chain([process, self.line.interest()]).flatten() {
            // There are no more than four.
            let _ = waited.push(PollFd::new(fd, flags));
        }
        match poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Nothing that it says can be helped: it looks by itself.
            Err(_) => std::thread::sleep(Duration::from_millis(TURN_MAX.into())),
        }
        let rung = waited[1].any() == Some(true);
        drop(waited);
        if rung {
            self.timer.hush();
        }
    }
}
