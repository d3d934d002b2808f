//! The options that exist, and which command takes which.
//!
//! Two tables. [`ENTRIES`] is what the option parser knows: names, letters, values. [`rule`] is the matrix of commands
//! and what may be said with them, in terms of [`Feature`]s: `-t`, `-u`, `--sctp-service` and `-f` are four ways to say
//! one thing, the service, and it may be said once.
//!
//! Invariant: an option of ipvsadm 1.31 is here under the same names; one that is ours exists in [`Dialect::Xvsadm`]
//! only, so that what calls itself ipvsadm refuses what ipvsadm refuses.

/// Whose command line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// ipvsadm's, without additions.
    Ipvsadm,
    /// ipvsadm's and what we added.
    Xvsadm,
}

/// Whether an option has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// It stands alone.
    None,
    /// It needs one.
    Required,
    /// It may have one.
    Optional,
}

/// What the command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of that name")]
pub enum Verb {
    AddService,
    EditService,
    DeleteService,
    AddServer,
    EditServer,
    DeleteServer,
    Clear,
    List,
    Zero,
    Set,
    Restore,
    Save,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

/// What an option says about the command's object. Each may be said once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the option of that name; `phrase` has the words")]
pub enum Feature {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Method,
    Weight,
    Upper,
    Lower,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    Nosort,
    SyncId,
    Exact,
    Ops,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Json,
}

/// What an option is: a command, something to say once, or one of the two that may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A command.
    Verb(Verb),
    /// Something about its object.
    Feature(Feature),
    /// `-6`
    Ipv6,
    /// `--sort`, which is what happens anyway.
    Sort,
}

/// An option as the parser knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Long name, without dashes.
    pub long: &'static str,
    /// Letter, if it has one.
    pub short: Option<char>,
    /// Value.
    pub value: Value,
    /// Meaning.
    pub meaning: Meaning,
}

const fn verb(long: &'static str, short: Option<char>, verb: Verb) -> Entry {
    Entry { long, short, value: Value::None, meaning: Meaning::Verb(verb) }
}

const fn flag(long: &'static str, short: Option<char>, feature: Feature) -> Entry {
    Entry { long, short, value: Value::None, meaning: Meaning::Feature(feature) }
}

const fn with(long: &'static str, short: Option<char>, feature: Feature) -> Entry {
    Entry { long, short, value: Value::Required, meaning: Meaning::Feature(feature) }
}

/// Every option.
pub static ENTRIES: &[Entry] = &[
    verb("add-service", Some('A'), Verb::AddService),
    verb("edit-service", Some('E'), Verb::EditService),
    verb("delete-service", Some('D'), Verb::DeleteService),
    verb("add-server", Some('a'), Verb::AddServer),
    verb("edit-server", Some('e'), Verb::EditServer),
    verb("delete-server", Some('d'), Verb::DeleteServer),
    verb("clear", Some('C'), Verb::Clear),
    verb("list", Some('L'), Verb::List),
    verb("list", Some('l'), Verb::List),
    verb("zero", Some('Z'), Verb::Zero),
    verb("set", None, Verb::Set),
    verb("restore", Some('R'), Verb::Restore),
    verb("save", Some('S'), Verb::Save),
    verb("help", Some('h'), Verb::Help),
    verb("version", Some('v'), Verb::Version),
    Entry { long: "start-daemon", short: None, value: Value::Required, meaning: Meaning::Verb(Verb::StartDaemon) },
    Entry { long: "stop-daemon", short: None, value: Value::Required, meaning: Meaning::Verb(Verb::StopDaemon) },
    with("tcp-service", Some('t'), Feature::Service),
    with("udp-service", Some('u'), Feature::Service),
    with("sctp-service", None, Feature::Service),
    with("fwmark-service", Some('f'), Feature::Service),
    Entry { long: "ipv6", short: Some('6'), value: Value::None, meaning: Meaning::Ipv6 },
    with("scheduler", Some('s'), Feature::Scheduler),
    Entry {
        long: "persistent",
        short: Some('p'),
        value: Value::Optional,
        meaning: Meaning::Feature(Feature::Persistent),
    },
    with("netmask", Some('M'), Feature::Netmask),
    with("pe", None, Feature::Engine),
    flag("ops", Some('o'), Feature::Ops),
    with("sched-flags", Some('b'), Feature::SchedFlags),
    with("real-server", Some('r'), Feature::Server),
    flag("gatewaying", Some('g'), Feature::Method),
    flag("ipip", Some('i'), Feature::Method),
    flag("masquerading", Some('m'), Feature::Method),
    with("tun-type", None, Feature::TunType),
    with("tun-port", None, Feature::TunPort),
    flag("tun-nocsum", None, Feature::TunNocsum),
    flag("tun-csum", None, Feature::TunCsum),
    flag("tun-remcsum", None, Feature::TunRemcsum),
    with("weight", Some('w'), Feature::Weight),
    with("u-threshold", Some('x'), Feature::Upper),
    with("l-threshold", Some('y'), Feature::Lower),
    flag("numeric", Some('n'), Feature::Numeric),
    flag("connection", Some('c'), Feature::Connection),
    flag("timeout", None, Feature::Timeout),
    flag("daemon", None, Feature::Daemon),
    flag("stats", None, Feature::Stats),
    flag("rate", None, Feature::Rate),
    flag("thresholds", None, Feature::Thresholds),
    flag("persistent-conn", None, Feature::PersistentConn),
    flag("tun-info", None, Feature::TunInfo),
    flag("nosort", None, Feature::Nosort),
    Entry { long: "sort", short: None, value: Value::None, meaning: Meaning::Sort },
    flag("exact", Some('X'), Feature::Exact),
    flag("json", None, Feature::Json),
    with("mcast-interface", None, Feature::McastInterface),
    with("syncid", None, Feature::SyncId),
    with("sync-maxlen", None, Feature::SyncMaxlen),
    with("mcast-group", None, Feature::McastGroup),
    with("mcast-port", None, Feature::McastPort),
    with("mcast-ttl", None, Feature::McastTtl),
];

/// The option of this long name.
pub fn by_long(name: &str, dialect: Dialect) -> Option<&'static Entry> {
    let ours = |entry: &Entry| entry.meaning == Meaning::Feature(Feature::Json);
    ENTRIES.iter().find(|entry| entry.long == name && (dialect == Dialect::Xvsadm || !ours(entry)))
}

/// The option of this letter.
pub fn by_short(letter: char) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.short == Some(letter))
}

/// What a command says to a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It must be there.
    Must,
    /// It may be there.
    May,
    /// It may be there if no other of this rule is.
    One,
    /// It may not be there.
    Never,
}

/// The matrix of commands and features.
pub fn rule(verb: Verb, feature: Feature, dialect: Dialect) -> Rule {
    use Feature as F;
    match (verb, feature) {
        (Verb::AddService | Verb::EditService | Verb::DeleteService, F::Service) => Rule::Must,
        (Verb::AddService | Verb::EditService, F::Scheduler | F::Persistent | F::Netmask) => Rule::May,
        (Verb::AddService | Verb::EditService, F::Ops | F::Engine | F::SchedFlags) => Rule::May,
        (Verb::AddServer | Verb::EditServer | Verb::DeleteServer, F::Service | F::Server) => Rule::Must,
        (Verb::AddServer | Verb::EditServer, F::Method | F::Weight | F::Upper | F::Lower) => Rule::May,
        (Verb::AddServer | Verb::EditServer, F::TunType | F::TunPort) => Rule::May,
        (Verb::AddServer | Verb::EditServer, F::TunNocsum | F::TunCsum | F::TunRemcsum) => Rule::May,
        (Verb::List, F::Connection | F::Service | F::Timeout | F::Daemon) => Rule::One,
        (Verb::List, F::Stats | F::Rate | F::Thresholds | F::PersistentConn | F::TunInfo) => Rule::May,
        (Verb::List, F::Numeric | F::Nosort | F::Exact | F::SyncId | F::Json) => Rule::May,
        (Verb::Zero, F::Service) | (Verb::Save, F::Numeric) => Rule::May,
        // ipvsadm's save forgets the thresholds; ours writes them when it is told to.
        (Verb::Save, F::Thresholds) if dialect == Dialect::Xvsadm => Rule::May,
        (Verb::StartDaemon | Verb::StopDaemon, F::SyncId) => Rule::May,
        (Verb::StartDaemon, F::McastInterface | F::McastGroup | F::McastPort | F::McastTtl) => Rule::May,
        (Verb::StartDaemon, F::SyncMaxlen) => Rule::May,
        _ => Rule::Never,
    }
}

impl Verb {
    /// Every command that takes features.
    pub const ALL: [Verb; 14] = [
        Verb::AddService,
        Verb::EditService,
        Verb::DeleteService,
        Verb::AddServer,
        Verb::EditServer,
        Verb::DeleteServer,
        Verb::Clear,
        Verb::List,
        Verb::Zero,
        Verb::Set,
        Verb::Restore,
        Verb::Save,
        Verb::StartDaemon,
        Verb::StopDaemon,
    ];

    /// The command for sentences: `-A` or `--start-daemon`.
    pub fn phrase(self) -> &'static str {
        match self {
            Verb::AddService => "-A (add-service)",
            Verb::EditService => "-E (edit-service)",
            Verb::DeleteService => "-D (delete-service)",
            Verb::AddServer => "-a (add-server)",
            Verb::EditServer => "-e (edit-server)",
            Verb::DeleteServer => "-d (delete-server)",
            Verb::Clear => "-C (clear)",
            Verb::List => "-L (list)",
            Verb::Zero => "-Z (zero)",
            Verb::Set => "--set",
            Verb::Restore => "-R (restore)",
            Verb::Save => "-S (save)",
            Verb::StartDaemon => "--start-daemon",
            Verb::StopDaemon => "--stop-daemon",
            Verb::Help => "-h (help)",
            Verb::Version => "-v (version)",
        }
    }
}

impl Feature {
    /// The feature for sentences: how it is typed.
    pub fn phrase(self) -> &'static str {
        match self {
            Feature::Numeric => "-n",
            Feature::Connection => "-c",
            Feature::Service => "a service (-t, -u or --sctp-service HOST:PORT, or -f MARK)",
            Feature::Scheduler => "-s SCHEDULER",
            Feature::Persistent => "-p [SECONDS]",
            Feature::Netmask => "-M MASK",
            Feature::Server => "a real server (-r HOST[:PORT])",
            Feature::Method => "a forwarding method (-g, -i or -m)",
            Feature::Weight => "-w WEIGHT",
            Feature::Upper => "-x CONNECTIONS",
            Feature::Lower => "-y CONNECTIONS",
            Feature::McastInterface => "--mcast-interface",
            Feature::Timeout => "--timeout",
            Feature::Daemon => "--daemon",
            Feature::Stats => "--stats",
            Feature::Rate => "--rate",
            Feature::Thresholds => "--thresholds",
            Feature::PersistentConn => "--persistent-conn",
            Feature::Nosort => "--nosort",
            Feature::SyncId => "--syncid",
            Feature::Exact => "-X (--exact)",
            Feature::Ops => "-o (--ops)",
            Feature::Engine => "--pe",
            Feature::SchedFlags => "-b (--sched-flags)",
            Feature::McastGroup => "--mcast-group",
            Feature::McastPort => "--mcast-port",
            Feature::McastTtl => "--mcast-ttl",
            Feature::SyncMaxlen => "--sync-maxlen",
            Feature::TunInfo => "--tun-info",
            Feature::TunType => "--tun-type",
            Feature::TunPort => "--tun-port",
            Feature::TunNocsum => "--tun-nocsum",
            Feature::TunCsum => "--tun-csum",
            Feature::TunRemcsum => "--tun-remcsum",
            Feature::Json => "--json",
        }
    }
}
