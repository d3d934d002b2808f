/* `faulty-time`: picks by the time and by random numbers, so that no two runs agree unless the director's do.
 *
 * It needs the grants `time` and `random`, and writes a line at each pick, for which it needs `log`. The director's
 * tests load it: with fewer grants it must be refused, and its flood of lines must be held back.
 *
 * Invariant: every pick is a slot of the list, usable or not. */
#include "xvs.h"

XVS_SCHEDULER(1024)
XVS_NO_OPTIONS

XVS_EXPORT(xvs_needs) int32_t xvs_needs(void)
{
    return 0;
}

XVS_EXPORT(xvs_schedule) int32_t xvs_schedule(void)
{
    static const char line[] = "faulty-time was asked";
    xvs_log(line, sizeof line - 1);
    if (!xvs_count())
        return XVS_NOBODY;
    return (int32_t)(((uint64_t)xvs_now() ^ (uint64_t)xvs_random()) % xvs_count());
}
