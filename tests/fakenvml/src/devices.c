/* The library itself, enumeration, identity. */
#include "core.h"
#include <fcntl.h>
#include <unistd.h>

static nvmlReturn_t doinit(const char *fn) {
    CALL;
    if (enter(&c, fn, NULL, 0)) return c.rc;
    if (!root() || !j_bool(root(), "driver_loaded", 1)) RET(E_NODRV);
    initcount++;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlInit(void) {
    return doinit("nvmlInit");
}

EXPORT nvmlReturn_t nvmlInit_v2(void) {
    return doinit("nvmlInit");
}

EXPORT nvmlReturn_t nvmlInitWithFlags(uint flags) {
    (void)flags;
    return doinit("nvmlInit");
}

EXPORT nvmlReturn_t nvmlShutdown(void) {
    SYS();
    initcount--;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *v, uint n) {
    SYS();
    RET(put(v, n, j_str(root(), "driver_version", "580.159.04")));
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *v, uint n) {
    SYS();
    RET(put(v, n, j_str(root(), "nvml_version", "13.580.159.04")));
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *v) {
    SYS();
    NEED(v);
    *v = (int)j_int(root(), "cuda_version", 13000);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *v) {
    SYS();
    NEED(v);
    *v = (int)j_int(root(), "cuda_version", 13000);
    RET(OK);
}

static jv *find_proc(uint pid) {
    for (int i = 0; i < ndev; i++) {
        jv *a = j_get(devs[i], "processes");
        for (jv *p = a ? a->child : NULL; p; p = p->next)
            if (j_int(p, "pid", 0) == pid) return p;
    }
    return NULL;
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(uint pid, char *name, uint n) {
    SYS();
    NEED(name);
    jv *p = find_proc(pid);
    const char *s = j_str(p, "name", NULL);
    char b[512] = "";
    if (!s) {
        char f[64];
        snprintf(f, sizeof f, "/proc/%u/cmdline", pid);
        int fd = open(f, O_RDONLY | O_CLOEXEC);
        if (fd < 0) RET(E_NOTFOUND);
        ssize_t k = read(fd, b, sizeof b - 1);
        close(fd);
        if (k < 0) k = 0;
        b[k] = 0;
        s = b;
    }
    snprintf(name, n, "%s", s);
    RET(OK);
}

/* --- enumeration --- */
EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(uint *n) {
    SYS();
    NEED(n);
    *n = (uint)ndev;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(uint *n) {
    return nvmlDeviceGetCount_v2(n);
}

static int hand(call_t *c, jv *d, nvmlDevice_t *out) { /* errors and hangs met while opening a device */
    char uuid[96];
    snprintf(uuid, sizeof uuid, "%s", j_str(d, "uuid", ""));
    stall(c->fn, uuid);
    if (!(d = dev_by_uuid(uuid))) return E_LOST;
    c->uuid = j_str(d, "uuid", "");
    int e = errcode(rule(j_get(d, "errors"), c->fn));
    if (e) return e;
    if (j_bool(d, "lost", 0)) return E_LOST;
    *out = handle_for(j_str(d, "uuid", ""), NULL, 0);
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(uint i, nvmlDevice_t *out) {
    SYS();
    NEED(out);
    if (i >= (uint)ndev) RET(E_ARG);
    RET(hand(&c, devs[i], out));
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(uint i, nvmlDevice_t *out) {
    return nvmlDeviceGetHandleByIndex_v2(i, out);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *u, nvmlDevice_t *out) {
    SYS();
    NEED(u);
    NEED(out);
    /* the NVML manual: GPU_IS_LOST "if any GPU has fallen off the bus" - opt in */
    if (j_bool(root(), "uuid_lookup_fails_if_any_lost", 0))
        for (int i = 0; i < ndev; i++)
            if (j_bool(devs[i], "lost", 0)) RET(E_LOST);
    jv *d = dev_by_uuid(u), *p = NULL;
    if (d) RET(hand(&c, d, out));
    jv *m = mig_by_uuid(u, &p);
    if (!m && !strncmp(u, "MIG-GPU-", 8)) { /* legacy MIG-<GPU-UUID>/<gi>/<ci> */
        char g[96];
        uint gi, ci;
        if (sscanf(u + 4, "%95[^/]/%u/%u", g, &gi, &ci) == 3 && (p = dev_by_uuid(g))) {
            jv *a = mig_instances(p);
            for (jv *x = a ? a->child : NULL; x; x = x->next)
                if (j_int(x, "gi", -1) == gi && j_int(x, "ci", 0) == ci) m = x;
        }
    }
    if (!m) RET(strncmp(u, "GPU-", 4) && strncmp(u, "MIG-", 4) ? E_ARG : E_NOTFOUND);
    if (j_bool(p, "lost", 0)) RET(E_LOST);
    *out = handle_for(j_str(m, "uuid", ""), j_str(p, "uuid", ""), 1);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const uuidv_t *u, nvmlDevice_t *out) {
    char s[64];
    if (!u) return E_ARG;
    if (u->version != 0x1000034) return E_VER;
    if (u->type == 1) {
        snprintf(s, sizeof s, "%.41s", u->v.str);
        return nvmlDeviceGetHandleByUUID(s, out);
    }
    if (u->type != 2) return E_ARG;
    const unsigned char *b = u->v.bytes;
    for (int m = 0; m < 2; m++) {
        snprintf(s, sizeof s, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                 m ? "MIG" : "GPU", b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                 b[12], b[13], b[14], b[15]);
        nvmlReturn_t r = nvmlDeviceGetHandleByUUID(s, out);
        if (r != E_NOTFOUND) return r;
    }
    return E_NOTFOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *s, nvmlDevice_t *out) {
    SYS();
    NEED(s);
    NEED(out);
    uint x[3], y[3];
    if (!parse_bus(s, x, x + 1, x + 2)) RET(E_ARG);
    for (int i = 0; i < ndev; i++)
        if (parse_bus(bus_of(devs[i]), y, y + 1, y + 2) && !memcmp(x, y, sizeof x))
            RET(hand(&c, devs[i], out));
    RET(E_NOTFOUND);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *s, nvmlDevice_t *out) {
    return nvmlDeviceGetHandleByPciBusId_v2(s, out);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *s, nvmlDevice_t *out) {
    SYS();
    NEED(s);
    NEED(out);
    for (int i = 0; i < ndev; i++)
        if (!strcmp(j_str(devs[i], "serial", "-"), s)) RET(hand(&c, devs[i], out));
    RET(E_NOTFOUND);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t h, uint *i) {
    DEV(h);
    NEED(i);
    if (c.m) {
        int k = 0;
        jv *a = mig_instances(c.d);
        for (jv *m = a->child; m && m != c.m; m = m->next) k++;
        *i = (uint)k;
        RET(OK);
    }
    *i = (uint)c.idx;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t h, uint *i) {
    DEV(h);
    PHYS();
    NEED(i);
    *i = (uint)j_int(c.d, "minor", c.idx);
    RET(OK);
}

static void devname(call_t *c, char *b, size_t n) {
    const char *nm = j_str(c->d, "name", c->p->name);
    if (c->m)
        snprintf(b, n, "%s MIG %s", nm, j_str(c->m, "profile", "1g"));
    else
        snprintf(b, n, "%s", nm);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t h, char *s, uint n) {
    DEV(h);
    char b[128];
    devname(&c, b, sizeof b);
    RET(put(s, n, b));
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t h, char *s, uint n) {
    DEV(h);
    RET(put(s, n, h->uuid));
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t h, char *s, uint n) {
    DEV(h);
    const char *x = j_str(c.d, "serial", NULL);
    if (!x) RET(E_NOSUP);
    RET(put(s, n, x));
}

EXPORT nvmlReturn_t nvmlDeviceGetBoardPartNumber(nvmlDevice_t h, char *s, uint n) {
    DEV(h);
    RET(put(s, n, "900-00000-0000-000"));
}

EXPORT nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t h, char *s, uint n) {
    DEV(h);
    RET(put(s, n, "96.00.89.00.01"));
}

EXPORT nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = c.p->brand;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = c.p->arch;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t h, int *a, int *b) {
    DEV(h);
    NEED(a);
    NEED(b);
    *a = c.p->cc / 10;
    *b = c.p->cc % 10;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = c.p->cores;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = c.p->bus;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetBoardId(nvmlDevice_t h, uint *o) {
    uint a, b, d;
    DEV(h);
    NEED(o);
    parse_bus(bus_of(c.d), &a, &b, &d);
    *o = a << 16 | b << 8 | d;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMultiGpuBoard(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = j_get(c.d, "board") ? 1 : 0;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetModuleId(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = (uint)c.idx + 1;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetBusType(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = 2;
    RET(OK);
}

void pcifill(const jv *d, const preset_t *p, pci3_t *o) {
    memset(o, 0, sizeof *o);
    parse_bus(bus_of(d), &o->domain, &o->bus, &o->device);
    o->pciDeviceId = (uint)j_int(d, "pci_device_id", p->devid);
    o->pciSubSystemId = (uint)j_int(d, "pci_subsystem_id", p->subid);
    snprintf(o->busIdLegacy, sizeof o->busIdLegacy, "%04X:%02X:%02X.0", o->domain & 0xFFFF, o->bus & 0xFF,
             o->device & 0xFF);
    snprintf(o->busId, sizeof o->busId, "%08X:%02X:%02X.0", o->domain, o->bus, o->device);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t h, pci3_t *o) {
    DEV(h);
    NEED(o);
    pcifill(c.d, c.p, o);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t h, pci2_t *o) {
    DEV(h);
    NEED(o);
    pci3_t x;
    pcifill(c.d, c.p, &x);
    memset(o, 0, sizeof *o);
    memcpy(o->busId, x.busIdLegacy, 16);
    o->domain = x.domain;
    o->bus = x.bus;
    o->device = x.device;
    o->pciDeviceId = x.pciDeviceId;
    o->pciSubSystemId = x.pciSubSystemId;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t h, pci2_t *o) {
    return nvmlDeviceGetPciInfo_v2(h, o);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t h, pciext_t *o) {
    DEV(h);
    NEED(o);
    if (o->version != 0x1000040) RET(E_VER);
    pci3_t x;
    pcifill(c.d, c.p, &x);
    o->domain = x.domain;
    o->bus = x.bus;
    o->device = x.device;
    o->pciDeviceId = x.pciDeviceId;
    o->pciSubSystemId = x.pciSubSystemId;
    o->baseClass = 3;
    o->subClass = 2;
    memcpy(o->busId, x.busId, 32);
    RET(OK);
}
