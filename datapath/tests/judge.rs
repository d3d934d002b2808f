//! The judges over the recordings that the project keeps.

use std::path::Path;

mod judges;

/// Every recorded choice of the kernel is ours too, with the lists and counts of every step.
#[test]
fn recorded_choices() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings"));
    let mut told = Vec::new();
    let verdicts = judges::traces::judge(directory, &mut told).expect("recordings");
    check(verdicts, &told, 300);
}

/// Every recorded output of the real ipvsadm is what the program prints for a director in the same state.
#[test]
fn recorded_outputs() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let mut told = Vec::new();
    let verdicts = judges::golden::judge(directory, &mut told).expect("recordings");
    check(verdicts, &told, 100);
}

/// The judge itself: it passes what is right, and tells a wrong choice, a wrong list and a word that it does not know,
/// with file and line.
#[test]
fn differences_are_seen() {
    let directory = std::env::temp_dir().join(format!("xvs-judge-{}", std::process::id()));
    let kernel = directory.join("kernel-7.3");
    std::fs::create_dir_all(&kernel).expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(kernel.join(name), text).expect("a file");
    write("kernel.txt", "Linux (none) 7.3.4 #1 SMP\nnet.ipv4.vs.conn_reuse_mode = 1\n");
    let typed = "  ipvsadm -C\n  ipvsadm -A -t 192.0.2.1:80 -s rr\n  ipvsadm -a -t 192.0.2.1:80 -r 10.1.0.11:80 -m\n  ipvsadm -C\n";
    let scenarios = ["right", "choice", "list", "event", "command"];
    write("setup-commands.txt", &scenarios.map(|name| format!("[{name}]\n{typed}")).concat());
    let titles = "scheduler,step,cip,cport,vip,vport,proto,chosen,event,dests_before\n";
    let open = "rr,0,198.51.100.7,4000,192.0.2.1,80,tcp,10.1.0.11:80,open,10.1.0.11:80/w1/a0/i0\n";
    let end = "rr,1,,,,,,,end,10.1.0.11:80/w1/a1/i0\n";
    write("right.csv", &[titles, open, end].concat());
    write("choice.csv", &[titles, &open.replace("tcp,10.1.0.11:80", "tcp,10.1.0.12:80"), end].concat());
    write("list.csv", &[titles, open, &end.replace("a1/i0", "a0/i1")].concat());
    write("event.csv", &[titles, &open.replace("open", "opened"), end].concat());
    write("command.csv", &[titles, open, "rr,1,,,,,,,cmd:reboot now,\n"].concat());
    let mut told = Vec::new();
    let verdicts = judges::traces::judge(&directory, &mut told);
    let _ = std::fs::remove_dir_all(&directory);
    let (verdicts, told) = (verdicts.expect("recordings"), String::from_utf8_lossy(&told));
    assert_eq!((verdicts.passed, verdicts.failed), (1, 4), "{told}");
    for words in [
        "ok     kernel-7.3 right",
        "choice.csv:2: step 0: 10.1.0.11:80 instead of 10.1.0.12:80",
        "list.csv:3: step 1: the list is 10.1.0.11:80/w1/a1/i0 instead of 10.1.0.11:80/w1/a0/i1",
        "event.csv:2: an event \"opened\"",
        "command.csv:3: `reboot now`",
        "1 passed, 4 failed",
    ] {
        assert!(told.contains(words), "{words:?} in {told}");
    }
}

/// Nothing failed, and more than so many were judged.
fn check(verdicts: judges::Verdicts, told: &[u8], least: usize) {
    let told = String::from_utf8_lossy(told);
    let bad: String = told.split_inclusive('\n').filter(|line| !line.starts_with(['o', '-'])).collect();
    assert_eq!(verdicts.failed, 0, "{bad}");
    assert!(verdicts.passed > least, "{bad}");
}
