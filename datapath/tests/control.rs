//! The control socket, from a tool's side: what is answered to whom, and what becomes of those who misbehave.
//!
//! Behind it works a loop over real rules; there is no datapath and no root.

mod frames;
mod rules;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use serde_json::Value;
use xvs::control::client::Client;
use xvs::control::protocol::{Action, Answer, Method, Outcome, RefusalKind};
use xvs::control::socket::{Call, Listening, SocketError, listen};

use rules::{Site, add, add_service};

/// A director without a datapath: its socket, and a thread that carries out what is asked.
struct Director {
    path: PathBuf,
    listening: Option<Listening>,
    thread: Option<JoinHandle<usize>>,
}

impl Director {
    fn start(name: &str) -> Director {
        let path = std::env::temp_dir().join(format!("xvs-control-{name}-{}", std::process::id())).join("d/xvs.sock");
        let (calls, inlet) = unbounded::<Call>();
        let listening = Some(listen(&path, calls).expect("a socket"));
        let thread = thread::spawn(move || {
            let mut site = Site::new(1 << 15);
            let mut count = 0;
            for Call { action, reply, .. } in inlet {
                count += 1;
                let outcome = match site.try_change(action) {
                    Ok(()) => Outcome::Ok(Answer::Done),
                    Err(refusal) => Outcome::Refused(refusal),
                };
                let _ = reply.send(outcome);
            }
            count
        });
        Director { path, listening, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).expect("a director")
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("a director");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    }

    /// Sends these bytes and reads one line.
    fn ask(&self, bytes: &[u8]) -> Value {
        let mut stream = self.raw();
        stream.write_all(bytes).expect("a listening director");
        line(&mut BufReader::new(stream))
    }

    /// Stops; gives the number of requests that came through.
    fn stop(mut self) -> usize {
        drop(self.listening.take());
        self.thread.take().expect("a thread").join().expect("it ends when the socket does")
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        drop(self.listening.take());
        let _ = self.path.ancestors().nth(2).map(fs::remove_dir_all);
    }
}

fn line(reader: &mut impl BufRead) -> Value {
    let mut text = String::new();
    reader.read_line(&mut text).expect("an answer");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

const STATUS: &[u8] = b"{\"v\":1,\"action\":\"status\"}\n";

/// Guards what tools in other languages meet when they are wrong: a refusal of the right kind, and the connection goes
/// on.
#[test]
fn wrong_lines_are_refused_one_by_one() {
    let director = Director::start("wrong");
    let mut reader = BufReader::new(director.raw());
    let deep = format!("{}1{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let wrong: [(&[u8], &str); 11] = [
        (b"hello\n", "malformed"),
        (b"\n", "malformed"),
        (b"{}\n", "malformed"),
        (b"[1]\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (deep.as_bytes(), "malformed"),
        (b"{\"v\":\"1\",\"action\":\"status\"}\n", "malformed"),
        (b"{\"v\":1}\n", "malformed"),
        (b"{\"v\":1,\"action\":\"dance\"}\n", "malformed"),
        (b"{\"v\":1,\"action\":\"status\",\"more\":1}\n", "malformed"),
        (b"{\"v\":2,\"action\":{\"of\":\"tomorrow\"},\"and\":3}\n", "version"),
    ];
    for (bytes, kind) in wrong {
        reader.get_mut().write_all(bytes).expect("a listening director");
        let answer = line(&mut reader);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!((&answer["v"], &answer["refused"]["kind"]), (&1.into(), &kind.into()), "{shown:?}: {answer}");
        assert!(answer["refused"]["message"].as_str().is_some_and(|message| message.len() > 20), "{answer}");
    }
    reader.get_mut().write_all(STATUS).expect("a listening director");
    assert_eq!(line(&mut reader)["ok"], "done");
    drop(reader);
    assert_eq!(director.stop(), 1, "only what was right came through");
}

/// Guards a line without an end: it is refused at its limit, and the connection ends, because nobody knows where the
/// next request begins.
#[test]
fn a_line_without_an_end_is_refused() {
    let director = Director::start("endless");
    let mut stream = director.raw();
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        stream.write_all(&chunk).expect("the director reads on");
    }
    assert_eq!(line(&mut reader)["refused"]["kind"], "malformed");
    let mut rest = Vec::new();
    assert!(matches!(reader.read_to_end(&mut rest), Ok(0) | Err(_)), "hung up, and no second answer");
    assert!(rest.is_empty());
    assert_eq!(director.ask(STATUS)["ok"], "done", "others are served");
}

/// Guards the rules against many tools at once: each gets its own answers, and no change is lost.
#[test]
fn many_tools_at_once() {
    let director = Director::start("many");
    thread::scope(|scope| {
        for tool in 1..=32 {
            let director = &director;
            scope.spawn(move || {
                let mut client = director.client();
                let vip = format!("192.0.2.{tool}:80");
                assert_eq!(client.call(add_service(&vip)).expect("an answer"), Ok(Answer::Done));
                for server in 1..=20 {
                    let action = add(&vip, &format!("10.0.{tool}.{server}:80"), Method::Nat);
                    assert_eq!(client.call(action).expect("an answer"), Ok(Answer::Done));
                }
                let again = client.call(add_service(&vip)).expect("an answer").expect_err("it exists");
                assert_eq!(again.kind, RefusalKind::ServiceExists);
                assert!(again.message.contains(&vip));
            });
        }
    });
    assert_eq!(director.stop(), 32 * 22);
}

/// Guards the director against tools that go away: in the middle of a line, before their answer, after it.
#[test]
fn tools_that_vanish_harm_nobody() {
    let director = Director::start("vanish");
    for _ in 0..200 {
        drop(director.raw());
        director.raw().write_all(b"{\"v\":1,\"act").expect("a listening director");
        director.raw().write_all(STATUS).expect("a listening director");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while director.ask(STATUS)["ok"] != "done" {
        assert!(Instant::now() < deadline, "the slots of those who left stay taken");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Guards the limit of connections: whoever is one too many is told so, and there is room again when others leave.
#[test]
fn one_tool_too_many_is_told_so() {
    let director = Director::start("crowd");
    let mut crowd: Vec<_> = (0..64).map(|_| director.raw()).collect();
    for stream in &mut crowd {
        // Answered, so accepted.
        stream.write_all(STATUS).expect("a listening director");
        assert_eq!(line(&mut BufReader::new(&mut *stream))["ok"], "done");
    }
    let refused = director.client().call(Action::Status).expect("an answer").expect_err("it is one too many");
    assert_eq!(refused.kind, RefusalKind::Limit);
    crowd.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    while director.client().call(Action::Status).is_ok_and(|answer| answer.is_err()) {
        assert!(Instant::now() < deadline, "there is room again");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Guards the socket's file: its user's alone, gone when the director is, its directory made if need be.
#[test]
fn the_file_is_private_and_goes_away() {
    let director = Director::start("file");
    let path = director.path.clone();
    let metadata = fs::symlink_metadata(&path).expect("the file");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let mut waiting = director.client();
    assert!(waiting.call(Action::Status).expect("an answer").is_ok());
    drop(waiting);
    director.stop();
    assert!(!path.exists());
    assert!(Client::connect(&path).is_err());
}

/// Guards against a second director, and against one that was killed: the first is left alone, the other's file is
/// replaced.
#[test]
fn a_living_director_keeps_its_socket_and_a_dead_one_does_not() {
    let director = Director::start("second");
    let (calls, _inlet) = unbounded();
    let refused = listen(&director.path, calls.clone()).expect_err("somebody listens");
    assert!(matches!(refused, SocketError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("--control"), "the cure is told: {refused}");
    assert_eq!(director.ask(STATUS)["ok"], "done", "the first did not notice");

    let stale = director.path.with_file_name("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    assert!(stale.exists(), "a closed listener leaves its file");
    let listening = listen(&stale, calls.clone()).expect("it replaces the file");
    UnixStream::connect(&stale).expect("it listens");

    // Somebody takes the path over; leaving must not take it away from him.
    fs::remove_file(&stale).expect("the file");
    let other = UnixListener::bind(&stale).expect("a socket");
    let inode = fs::symlink_metadata(&stale).expect("the file").ino();
    drop(listening);
    assert_eq!(fs::symlink_metadata(&stale).expect("still there").ino(), inode);
    drop(other);
}

/// Guards a person's file whose name was given by mistake: it is neither removed nor replaced.
#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let director = Director::start("precious");
    let path = director.path.with_file_name("site.toml");
    fs::write(&path, "precious").expect("a file");
    let (calls, _inlet) = unbounded();
    let refused = listen(&path, calls).expect_err("it is no socket");
    assert!(matches!(refused, SocketError::NotSocket(_)), "{refused}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

/// Guards against a quadratic step in the way of a change: a thousand services of ten servers each, one request a
/// time over the socket, in a time that a person waits for. (It prints the time for those who measure.)
#[test]
fn ten_thousand_servers_are_added_in_seconds() {
    let director = Director::start("bulk");
    let mut client = director.client();
    let started = Instant::now();
    for number in 0..1000 {
        let vip = format!("192.0.{}.{}:80", number / 250, number % 250 + 1);
        assert!(client.call(add_service(&vip)).expect("an answer").is_ok());
        for server in 0..10 {
            let action = add(&vip, &format!("10.{server}.{}.{}:80", number / 250, number % 250 + 1), Method::Nat);
            assert!(client.call(action).expect("an answer").is_ok());
        }
    }
    let elapsed = started.elapsed();
    println!("11000 requests in {elapsed:?}");
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");
}
