/* `least-c`: the server with the least load in proportion to its weight, in C. What the director's own `wlc` does.
 *
 * An active connection counts 257, an inactive one 1. Load / weight is compared as a product: a is below b if
 * a.load * b.weight < b.load * a.weight. A later server in the list must be strictly better, so the newest wins among
 * equals. A load has 41 bits at most and a weight 31, so the product may not fit into 64 bits; the compiler's 128-bit
 * numbers need a library that is not there, and so two halves are compared. What was found so far is in variables and
 * not looked up again: loads are what the director prices dearest.
 *
 * Invariant: it remembers nothing, and picks what `wlc` picks. */
#include "xvs.h"

XVS_SCHEDULER(1024)
XVS_NO_OPTIONS

static uint64_t load(const struct xvs_row *row)
{
    return 256 * (uint64_t)row->active + row->total;
}

/* a * b < c * d, of numbers a, c of 41 bits and b, d of 31. */
static int below(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t left = (a & 0xffffffff) * b, right = (c & 0xffffffff) * d;
    uint64_t left_high = (a >> 32) * b + (left >> 32), right_high = (c >> 32) * d + (right >> 32);
    if (left_high != right_high)
        return left_high < right_high;
    return (uint32_t)left < (uint32_t)right;
}

XVS_EXPORT(xvs_needs) int32_t xvs_needs(void)
{
    return XVS_NEEDS_COUNTS;
}

XVS_EXPORT(xvs_schedule) int32_t xvs_schedule(void)
{
    /* What was found so far: a server that bears something and can bear nothing, which every usable one is below. */
    int32_t picked = XVS_NOBODY;
    uint64_t least = 1, weight = 0;
    uint32_t count = xvs_count();
    for (uint32_t index = 0; index < count; index++) {
        const struct xvs_row *row = &xvs_rows[index];
        if (!(row->flags & XVS_USABLE))
            continue;
        uint64_t own = load(row), own_weight = (uint32_t)row->weight;
        if (below(own, weight, least, own_weight)) {
            picked = (int32_t)index;
            least = own;
            weight = own_weight;
        }
    }
    return picked;
}
