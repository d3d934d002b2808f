/* ABI v1 of xvs for schedulers in C: the structures and constants of abi.rs, and macros for the exports.
 *
 * Include it in one file, say XVS_SCHEDULER(rows) and one of XVS_NO_OPTIONS and XVS_OPTIONS there, perhaps
 * XVS_FACTS(rows), and write the other exports with XVS_EXPORT: xvs_needs and xvs_schedule at least. ABI.md tells what
 * the director does with them.
 *
 *   clang --target=wasm32 -ffreestanding -nostdlib -O2 -I sdk -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first \
 *         -Wl,-z,stack-size=16384 -o mine.wasm mine.c
 *
 * Invariant: sizes and places are asserted at the end. Not here: any memory but these buffers; there is no C library. */
#ifndef XVS_H
#define XVS_H

#include <stddef.h>
#include <stdint.h>

#define XVS_ABI 1
#define XVS_MAGIC 0x31535658u /* "XVS1" */

/* Answers of xvs_schedule that are no slot. */
#define XVS_NOBODY (-1)
#define XVS_FALLBACK (-2)

/* Bits of xvs_needs. */
#define XVS_NEEDS_COUNTS 1u
#define XVS_NEEDS_FACTS 2u
#define XVS_NEEDS_REBUILD 4u
#define XVS_NEEDS_DENY 8u

/* Bits of xvs_row.flags. */
#define XVS_USABLE 1u
#define XVS_OVERLOADED 2u
#define XVS_QUIESCED 4u

/* Kinds of xvs_changed, and its answers. */
#define XVS_CHANGED_ALL 0
#define XVS_CHANGED_ADDED 1
#define XVS_CHANGED_REMOVED 2
#define XVS_CHANGED_EDITED 3
#define XVS_CHANGED_DONE 0
#define XVS_CHANGED_REBUILD 1

#define XVS_TEXT_MAX 4096
#define XVS_TAGS_MAX 112

struct xvs_table_head {
    uint32_t magic, abi, generation, count, capacity, row_size, reserved[2];
};

struct xvs_row {
    int32_t weight;
    uint32_t active, total, flags;
    int32_t last_weight;
    uint32_t health;
    uint64_t id;
};

struct xvs_facts_head {
    uint32_t magic, capacity, facts_size, reserved;
};

struct xvs_facts {
    uint8_t address[16];
    uint16_t port;
    uint8_t family, method;
    uint32_t upper, lower, conns_per_s;
    uint64_t packets_in, packets_out, bytes_in, bytes_out;
    int64_t metric;
    uint32_t tags_len, reserved;
    uint8_t tags[XVS_TAGS_MAX];
};

struct xvs_flow {
    uint8_t client[16], virtual_address[16];
    uint64_t hash;
    uint32_t service, mark;
    uint16_t client_port, virtual_port;
    uint8_t protocol, flags, family, reserved;
    uint32_t interface, queue;
};

struct xvs_text_head {
    uint32_t capacity, len;
};

/* A buffer for options or for a state. */
struct xvs_text {
    struct xvs_text_head head;
    uint8_t bytes[XVS_TEXT_MAX];
};

/* Puts a function's name among the module's exports. */
#define XVS_EXPORT(name) __attribute__((export_name(#name))) extern

/* What the operator may grant. A module that calls one is refused where it is not granted. */
#define XVS_IMPORT(name) __attribute__((import_module("xvs"), import_name(#name))) extern
XVS_IMPORT(log) void xvs_log(const char *text, uint32_t len);
XVS_IMPORT(now) int64_t xvs_now(void);
XVS_IMPORT(random) int64_t xvs_random(void);

/* For so many servers at most: `xvs_rows[0]` to `xvs_rows[xvs_count() - 1]`, and the flow `xvs_asked`. */
#define xvs_rows ((const struct xvs_row *)xvs_list.rows)
#define XVS_SCHEDULER(ROWS)                                                                                            \
    static struct {                                                                                                    \
        struct xvs_table_head head;                                                                                    \
        struct xvs_row rows[ROWS];                                                                                     \
    } xvs_list;                                                                                                        \
    static struct xvs_flow xvs_asked;                                                                                  \
    static inline uint32_t xvs_count(void) { return xvs_list.head.count < (ROWS) ? xvs_list.head.count : (ROWS); }     \
    XVS_EXPORT(xvs_abi_version) int32_t xvs_abi_version(void) { return XVS_ABI; }                                      \
    XVS_EXPORT(xvs_table) void *xvs_table(void)                                                                        \
    {                                                                                                                  \
        xvs_list.head.magic = XVS_MAGIC;                                                                               \
        xvs_list.head.abi = XVS_ABI;                                                                                   \
        xvs_list.head.capacity = (ROWS);                                                                               \
        xvs_list.head.row_size = sizeof(struct xvs_row);                                                               \
        return &xvs_list;                                                                                              \
    }                                                                                                                  \
    XVS_EXPORT(xvs_io) void *xvs_io(void) { return &xvs_asked; }

/* For one that takes no options. */
#define XVS_NO_OPTIONS                                                                                                 \
    XVS_EXPORT(xvs_config) void *xvs_config(void) { return NULL; }

/* For one that takes options: they are in `xvs_options` when xvs_configure is called. */
#define XVS_OPTIONS                                                                                                    \
    static struct xvs_text xvs_options;                                                                                \
    XVS_EXPORT(xvs_config) void *xvs_config(void)                                                                      \
    {                                                                                                                  \
        xvs_options.head.capacity = XVS_TEXT_MAX;                                                                      \
        return &xvs_options;                                                                                           \
    }

/* For one that reads facts: `xvs_known[]`, in the order of the rows. */
#define xvs_known ((const struct xvs_facts *)xvs_fact_list.facts)
#define XVS_FACTS(ROWS)                                                                                                \
    static struct {                                                                                                    \
        struct xvs_facts_head head;                                                                                    \
        struct xvs_facts facts[ROWS];                                                                                  \
    } xvs_fact_list;                                                                                                   \
    XVS_EXPORT(xvs_facts) void *xvs_facts(void)                                                                        \
    {                                                                                                                  \
        xvs_fact_list.head.magic = XVS_MAGIC;                                                                          \
        xvs_fact_list.head.capacity = (ROWS);                                                                          \
        xvs_fact_list.head.facts_size = sizeof(struct xvs_facts);                                                      \
        return &xvs_fact_list;                                                                                         \
    }

_Static_assert(sizeof(struct xvs_table_head) == 32, "the table's head has 32 bytes");
_Static_assert(sizeof(struct xvs_row) == 32 && offsetof(struct xvs_row, id) == 24, "a row has 32 bytes");
_Static_assert(sizeof(struct xvs_facts_head) == 16, "the facts' head has 16 bytes");
_Static_assert(sizeof(struct xvs_facts) == 192 && offsetof(struct xvs_facts, tags) == 80, "facts have 192 bytes");
_Static_assert(sizeof(struct xvs_flow) == 64 && offsetof(struct xvs_flow, queue) == 60, "a flow has 64 bytes");
_Static_assert(sizeof(struct xvs_text_head) == 8, "a text's head has 8 bytes");

#endif
