/* Every symbol that nvidia-ml-py knows is exported: those without code of their own answer NOT_SUPPORTED,
 * still subject to "errors" and "hang_ms". Weak: a definition in another file takes its place.
 * symbols.inc is made from symbols.txt by the Makefile. */
#include "core.h"

nvmlReturn_t fake_stub(const char *fn) {
    CALL;
    if (enter(&c, fn, NULL, 1)) return c.rc;
    RET(E_NOSUP);
}

#define STUB(name)                                                                                           \
    __attribute__((weak, visibility("default"))) int name(void);                                             \
    int name(void) {                                                                                         \
        return fake_stub(#name);                                                                             \
    }
#include "symbols.inc"
