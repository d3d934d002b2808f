/* `faulty`: a scheduler that does what a scheduler must not do. The director's tests load it.
 *
 * What it does wrong is chosen by its option `mode` (a name of the table below; `well` if there is none), and when by
 * its option `when`: `always`, `port` (only for flows whose client port is a mode's number; the port chooses the mode),
 * or `after` with the option `after=N` (N picks go well first). Where it does no wrong it picks the first usable
 * server. Modes that begin with `setup-`, `change-` and `event-` misbehave in xvs_configure, in xvs_changed, and in
 * xvs_on_health and xvs_on_conn; all others in xvs_schedule.
 *
 * Invariant: a mode does one wrong. What needs another module is not here: `faulty-time` depends on the time; a lie
 * about the version, an import that nobody knows, or a table outside of the memory are text in the tests that need
 * them. */
#include "xvs.h"

#define ROWS 1024

XVS_SCHEDULER(ROWS)
XVS_OPTIONS

/* The modes. Their numbers are client ports: `when=port` and a flow from port 4001 is a loop without end. */
#define MODES(X)                                                                                                       \
    X(WELL, 4000, "well")                         /* nothing wrong */                                                 \
    X(SPIN, 4001, "spin")                         /* a loop without end */                                            \
    X(TRAP, 4002, "trap")                         /* the instruction `unreachable` */                                 \
    X(DIVIDE, 4003, "divide")                     /* a division by zero */                                            \
    X(OVERFLOW, 4004, "overflow")                 /* a recursion without end, whose frames fill the stack's memory */ \
    X(RECURSE, 4005, "recurse")                   /* the same without frames in memory: the director's own stack */   \
    X(OUTSIDE, 4006, "outside")                   /* a read beyond the memory */                                      \
    X(SCRIBBLE, 4007, "scribble")                 /* a write beyond the memory */                                     \
    X(INDIRECT, 4008, "indirect")                 /* a call of a function that is none */                             \
    X(GROW, 4009, "grow")                         /* a page more of memory at each pick, written to */                \
    X(HOARD, 4010, "hoard")                       /* as much memory as it gets, at once */                            \
    X(NONSENSE, 4011, "nonsense")                 /* slot 1000000 */                                                  \
    X(JUST_BEYOND, 4012, "just-beyond")           /* the slot behind the last one */                                  \
    X(NEGATIVE, 4013, "negative")                 /* an answer that has no meaning: -77 */                            \
    X(NOBODY, 4014, "nobody")                     /* nobody, although it did not say that it denies */                \
    X(FALLBACK, 4015, "fallback")                 /* the native scheduler shall do it, always */                      \
    X(UNUSABLE, 4016, "unusable")                 /* a server that is not usable, if there is one */                  \
    X(CORRUPT_HEAD, 4017, "corrupt-head")         /* overwrites the head of its table */                              \
    X(CORRUPT_ROWS, 4018, "corrupt-rows")         /* makes all its rows usable, of weight 1, and picks the last */    \
    X(CORRUPT_FLOW, 4019, "corrupt-flow")         /* overwrites the flow */                                           \
    X(COUNT, 4020, "count")                       /* picks by how often it was asked, and by nothing else */          \
    X(SLOW, 4021, "slow")                         /* spends more at each pick, until the budget is not enough */      \
    X(SETUP_SPIN, 4022, "setup-spin")                                                                                 \
    X(SETUP_TRAP, 4023, "setup-trap")                                                                                 \
    X(SETUP_REFUSE, 4024, "setup-refuse")         /* refuses its options, with a sentence */                          \
    X(SETUP_MUTE, 4025, "setup-mute")             /* refuses them, with a length beyond the buffer */                 \
    X(CHANGE_SPIN, 4026, "change-spin")                                                                               \
    X(CHANGE_TRAP, 4027, "change-trap")                                                                               \
    X(CHANGE_REBUILD, 4028, "change-rebuild")     /* wants a new instance at each change, also at the first */        \
    X(CHANGE_NONSENSE, 4029, "change-nonsense")   /* answers what has no meaning */                                   \
    X(EVENT_SPIN, 4030, "event-spin")                                                                                 \
    X(EVENT_TRAP, 4031, "event-trap")                                                                                 \
    X(STATE_LIE, 4032, "state-lie")               /* says that its state has more bytes than its buffer */            \
    X(STATE_TRAP, 4033, "state-trap")             /* saving and loading its state trap */                             \
    X(STATE_SPIN, 4034, "state-spin")

enum mode {
#define X(name, number, text) name = number,
    MODES(X)
#undef X
};

static enum mode mode = WELL;
static enum { ALWAYS, PORT } when = ALWAYS;
static uint32_t after, asked;
static struct xvs_text state;
static volatile uint32_t sink, zero;

static void spin(void)
{
    for (;;)
        sink++;
}

static void divide(void)
{
    sink = sink / zero;
}

/* Each frame holds memory that the next one reads, so that it can not become a loop. */
static __attribute__((noinline)) uint32_t overflow(uint32_t depth, volatile uint32_t *above)
{
    volatile uint32_t frame[64];
    frame[depth % 64] = *above + depth;
    if (sink == 0xffffffff)
        return depth;
    return overflow(depth + 1, frame) + frame[(depth + 1) % 64];
}

/* No memory of its own: only the stack of whoever runs it. */
static __attribute__((noinline)) uint32_t recurse(uint32_t depth)
{
    return sink == 0xffffffff ? depth : recurse(depth + 1) * 3 + sink;
}

static int32_t first_usable(void)
{
    for (uint32_t index = 0; index < xvs_count(); index++)
        if (xvs_rows[index].flags & XVS_USABLE)
            return (int32_t)index;
    return XVS_NOBODY;
}

/* Pages are 64 KiB. The new ones are written to, so that they are real. */
static int grow(uint32_t pages)
{
    size_t before = __builtin_wasm_memory_grow(0, pages);
    if (before == SIZE_MAX)
        return 0;
    for (size_t at = before << 16; at < (before + pages) << 16; at += 4096)
        *(volatile uint8_t *)at = 1;
    return 1;
}

static int32_t corrupt_rows(void)
{
    for (uint32_t index = 0; index < ROWS; index++)
        xvs_list.rows[index] = (struct xvs_row){ .weight = 1, .flags = XVS_USABLE, .health = 100 };
    return (int32_t)xvs_count() - 1;
}

static int32_t corrupt(void *from, uint32_t size)
{
    for (uint32_t at = 0; at < size; at++)
        ((volatile uint8_t *)from)[at] = 0xa5;
    return 0;
}

static int32_t unusable(void)
{
    for (uint32_t index = 0; index < xvs_count(); index++)
        if (!(xvs_rows[index].flags & XVS_USABLE))
            return (int32_t)index;
    return first_usable();
}

static int32_t misbehave(enum mode mode)
{
    switch (mode) {
    case SPIN: spin(); break;
    case TRAP: __builtin_trap();
    case DIVIDE: divide(); break;
    case OVERFLOW: return (int32_t)overflow(0, &zero);
    case RECURSE: return (int32_t)recurse(0);
    case OUTSIDE: return (int32_t)*(volatile uint32_t *)0xfffffff0u;
    case SCRIBBLE: *(volatile uint32_t *)0xfffffff0u = 1; break;
    case INDIRECT: return ((int32_t (*)(void))(uintptr_t)(0x12345 + zero))();
    case GROW: grow(1); break;
    case HOARD: while (grow(1)) {} break;
    case NONSENSE: return 1000000;
    case JUST_BEYOND: return (int32_t)xvs_count();
    case NEGATIVE: return -77;
    case NOBODY: return XVS_NOBODY;
    case FALLBACK: return XVS_FALLBACK;
    case UNUSABLE: return unusable();
    case CORRUPT_HEAD: return corrupt(&xvs_list.head, sizeof xvs_list.head);
    case CORRUPT_ROWS: return corrupt_rows();
    case CORRUPT_FLOW: return corrupt(&xvs_asked, sizeof xvs_asked);
    case COUNT: return xvs_count() ? (int32_t)(asked * 2654435761u % xvs_count()) : XVS_NOBODY;
    case SLOW: for (uint32_t turn = 0; turn < asked * 64; turn++) sink++; break;
    default: break;
    }
    return first_usable();
}

/* The value of an option and its length, or NULL. */
static const uint8_t *option(const char *name, uint32_t *len)
{
    const uint8_t *at = xvs_options.bytes;
    const uint8_t *end = at + (xvs_options.head.len < XVS_TEXT_MAX ? xvs_options.head.len : XVS_TEXT_MAX);
    while (at < end) {
        const uint8_t *line = at;
        while (at < end && *at != '\n')
            at++;
        const char *rest = name;
        while (line < at && *rest && *line == (uint8_t)*rest)
            line++, rest++;
        if (!*rest && line < at && *line == '=') {
            *len = (uint32_t)(at - line - 1);
            return line + 1;
        }
        at++;
    }
    return NULL;
}

static int is(const uint8_t *value, uint32_t len, const char *text)
{
    uint32_t at = 0;
    for (; at < len && text[at]; at++)
        if (value[at] != (uint8_t)text[at])
            return 0;
    return at == len && !text[at];
}

static int32_t refuse(const char *sentence)
{
    uint32_t len = 0;
    for (; sentence[len]; len++)
        xvs_options.bytes[len] = (uint8_t)sentence[len];
    xvs_options.head.len = len;
    return -1;
}

static int32_t take_options(void)
{
    uint32_t len;
    const uint8_t *value = option("mode", &len);
    if (value) {
        int known = 0;
#define X(name, number, text) if (is(value, len, text)) mode = name, known = 1;
        MODES(X)
#undef X
        if (!known)
            return refuse("`mode` is none of those that faulty knows; its source has the list");
    }
    value = option("when", &len);
    if (value && !is(value, len, "always") && !is(value, len, "port"))
        return refuse("`when` is `always` or `port`");
    when = value && is(value, len, "port") ? PORT : ALWAYS;
    value = option("after", &len);
    for (uint32_t at = 0; value && at < len; at++) {
        if (value[at] < '0' || value[at] > '9')
            return refuse("`after` is a number of picks");
        after = after * 10 + (value[at] - '0');
    }
    return 0;
}

XVS_EXPORT(xvs_needs) int32_t xvs_needs(void)
{
    return XVS_NEEDS_COUNTS;
}

XVS_EXPORT(xvs_configure) int32_t xvs_configure(void)
{
    int32_t result = take_options();
    if (result < 0)
        return result;
    switch (mode) {
    case SETUP_SPIN: spin(); break;
    case SETUP_TRAP: __builtin_trap();
    case SETUP_REFUSE: return refuse("faulty refuses its options, as it was told to");
    case SETUP_MUTE: xvs_options.head.len = 0xffffffffu; return -1;
    default: break;
    }
    return 0;
}

XVS_EXPORT(xvs_changed) int32_t xvs_changed(int32_t kind, int32_t index)
{
    (void)kind, (void)index;
    switch (mode) {
    case CHANGE_SPIN: spin(); break;
    case CHANGE_TRAP: __builtin_trap();
    case CHANGE_REBUILD: return XVS_CHANGED_REBUILD;
    case CHANGE_NONSENSE: return 12345;
    default: break;
    }
    return XVS_CHANGED_DONE;
}

static void hear(void)
{
    if (mode == EVENT_SPIN)
        spin();
    if (mode == EVENT_TRAP)
        __builtin_trap();
}

XVS_EXPORT(xvs_on_health) void xvs_on_health(int32_t index)
{
    (void)index;
    hear();
}

XVS_EXPORT(xvs_on_conn) void xvs_on_conn(int32_t index, int32_t delta)
{
    (void)index, (void)delta;
    hear();
}

XVS_EXPORT(xvs_state) void *xvs_state(void)
{
    state.head.capacity = XVS_TEXT_MAX;
    return &state;
}

/* What it has to hand over is how often it was asked. */
XVS_EXPORT(xvs_state_save) int32_t xvs_state_save(void)
{
    switch (mode) {
    case STATE_LIE: return XVS_TEXT_MAX + 1;
    case STATE_TRAP: __builtin_trap();
    case STATE_SPIN: spin(); break;
    default: break;
    }
    for (uint32_t at = 0; at < 4; at++)
        state.bytes[at] = (uint8_t)(asked >> 8 * at);
    return 4;
}

XVS_EXPORT(xvs_state_load) int32_t xvs_state_load(void)
{
    switch (mode) {
    case STATE_TRAP: __builtin_trap();
    case STATE_SPIN: spin(); break;
    default: break;
    }
    if (state.head.len != 4)
        return -1;
    asked = 0;
    for (uint32_t at = 0; at < 4; at++)
        asked |= (uint32_t)state.bytes[at] << 8 * at;
    return 0;
}

XVS_EXPORT(xvs_schedule) int32_t xvs_schedule(void)
{
    asked++;
    if (asked <= after)
        return first_usable();
    return misbehave(when == PORT ? (enum mode)xvs_asked.client_port : mode);
}
