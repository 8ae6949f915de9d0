/* Events, from "events": [{"seq": 1, "device": "<uuid>", "type": 8, "data": 79, "gi": n, "ci": n}].
 *
 *   FAKENVML_POLL_MS how often a blocked nvmlEventSetWait looks at the state again (20)
 */
#include "core.h"
#include <stdlib.h>
#include <time.h>

#define SETMAGIC 0xF4CE5E7Du

static struct fset *sets;

static long long max_seq(void) {
    long long m = 0;
    jv *a = j_get(root(), "events");
    int i = 0;
    for (jv *e = a ? a->child : NULL; e; e = e->next) {
        long long s = j_int(e, "seq", ++i);
        if (s > m) m = s;
    }
    return m;
}

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *o) {
    SYS();
    NEED(o);
    struct fset *s = calloc(1, sizeof *s);
    if (!s) RET(E_MEM);
    s->magic = SETMAGIC;
    s->last = max_seq();
    s->next = sets;
    sets = s;
    *o = s;
    RET(OK);
}

static struct fset *okset(struct fset *s) {
    for (struct fset *x = sets; x; x = x->next)
        if (x == s) return s;
    return NULL;
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t s) {
    SYS();
    if (!okset(s)) RET(E_ARG);
    for (struct fset **p = &sets; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            free(s);
            break;
        }
    RET(OK);
}

static ull events_of(const call_t *c) {
    return (ull)j_int(c->d, "supported_events", c->p->events);
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t h, ull *o) {
    DEV(h);
    NEED(o);
    *o = events_of(&c);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t h, ull mask, nvmlEventSet_t s) {
    DEV(h);
    if (!okset(s)) RET(E_ARG);
    if (c.m) RET(E_NOSUP);
    if (mask & ~events_of(&c)) RET(E_NOSUP); /* one unsupported bit: nothing is registered */
    if (s->n >= MAXDEV) RET(E_MEM);
    s->reg[s->n].d = h;
    s->reg[s->n].mask = mask;
    s->reg[s->n].since = max_seq();
    s->n++;
    RET(OK); /* earlier events are not recorded */
}

/* A driver may forget with a GPU who wanted to hear of it: "loss_ends_events". */
static void forget_lost(struct fset *s) {
    if (!j_bool(root(), "loss_ends_events", 0)) return;
    for (int k = 0; k < s->n; k++) {
        const jv *d = dev_by_uuid(s->reg[k].d->uuid);
        if (!d || j_bool(d, "lost", 0)) s->reg[k].mask = 0;
    }
}

static int next_event(struct fset *s, event2_t *o) {
    jv *best = NULL;
    long long bs = 0;
    int i = 0;
    struct fdev *bd = NULL;
    jv *a = j_get(root(), "events");
    for (jv *e = a ? a->child : NULL; e; e = e->next) {
        long long q = j_int(e, "seq", ++i);
        if (q <= s->last || (best && q >= bs)) continue;
        ull ty = (ull)j_int(e, "type", 8);
        for (int k = 0; k < s->n; k++)
            if (!strcmp(s->reg[k].d->uuid, j_str(e, "device", "")) && (s->reg[k].mask & ty) &&
                q > s->reg[k].since) {
                best = e;
                bs = q;
                bd = s->reg[k].d;
            }
    }
    if (!best) {
        forget_lost(s);
        return 0;
    }
    s->last = bs;
    o->device = bd;
    o->type = (ull)j_int(best, "type", 8);
    o->data = (ull)j_int(best, "data", 0);
    o->gi = (uint)j_int(best, "gi", ANYID);
    o->ci = (uint)j_int(best, "ci", ANYID);
    return 1;
}

static nvmlReturn_t waitev(const char *fn, nvmlEventSet_t s, event2_t *o, uint ms) {
    struct timespec t0, t;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    const char *pm = getenv("FAKENVML_POLL_MS");
    long step = pm ? atol(pm) : 20;
    if (step < 1) step = 1;
    for (;;) {
        {
            CALL;
            int e = enter(&c, fn, NULL, 1);
            if (e) return e;
            if (!okset(s)) RET(E_ARG);
            if (!o) RET(E_ARG);
            if (next_event(s, o)) {
                c.uuid = o->device->uuid;
                RET(OK);
            }
            clock_gettime(CLOCK_MONOTONIC, &t);
            long long gone = (t.tv_sec - t0.tv_sec) * 1000LL + (t.tv_nsec - t0.tv_nsec) / 1000000;
            if (gone >= ms) RET(E_TIMEOUT);
            if (ms - gone < step) step = (long)(ms - gone) > 0 ? (long)(ms - gone) : 1;
            release(&c); /* looking again is not a call of its own */
        }
        nap(step);
    }
}

EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t s, event2_t *o, uint ms) {
    return waitev(__func__, s, o, ms);
}

EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t s, event1_t *o, uint ms) {
    event2_t e;
    if (!o) return E_ARG;
    nvmlReturn_t r = waitev(__func__, s, &e, ms);
    if (!r) {
        o->device = e.device;
        o->type = e.type;
        o->data = e.data;
    }
    return r;
}
