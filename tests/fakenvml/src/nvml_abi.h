/* ABI types of NVML as nvidia-ml-py's ctypes classes describe them (own text). */
#ifndef FAKENVML_H
#define FAKENVML_H
#include <stdint.h>
typedef int nvmlReturn_t;
typedef unsigned int uint;
typedef unsigned long long ull;

enum {
    OK = 0,
    E_UNINIT = 1,
    E_ARG = 2,
    E_NOSUP = 3,
    E_PERM = 4,
    E_ALREADY = 5,
    E_NOTFOUND = 6,
    E_SIZE = 7,
    E_POWER = 8,
    E_NODRV = 9,
    E_TIMEOUT = 10,
    E_IRQ = 11,
    E_NOLIB = 12,
    E_NOFUNC = 13,
    E_INFOROM = 14,
    E_LOST = 15,
    E_RESET = 16,
    E_OS = 17,
    E_MISMATCH = 18,
    E_INUSE = 19,
    E_MEM = 20,
    E_NODATA = 21,
    E_VGPU_ECC = 22,
    E_RES = 23,
    E_FREQ = 24,
    E_VER = 25,
    E_DEPREC = 26,
    E_NOTREADY = 27,
    E_NOGPU = 28,
    E_STATE = 29,
    E_RESETTYPE = 30,
    E_UNKNOWN = 999
};
typedef struct fdev *nvmlDevice_t;
typedef struct fset *nvmlEventSet_t;

typedef struct {
    char busIdLegacy[16];
    uint domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci3_t;

typedef struct {
    char busId[16];
    uint domain, bus, device, pciDeviceId, pciSubSystemId, r0, r1, r2, r3;
} pci2_t;

typedef struct {
    uint version, domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass;
    char busId[32];
} pciext_t;

typedef struct {
    ull total, free, used;
} mem1_t;

typedef struct {
    uint version;
    ull total, reserved, free, used;
} mem2_t;

typedef struct {
    uint pid;
    ull used;
} proc1_t;

typedef struct {
    uint pid;
    ull used;
    uint gi, ci;
} proc2_t;

typedef struct {
    uint pid;
    ull used;
    uint gi, ci;
    ull cc;
} procd_t;

typedef struct {
    uint version, mode, n;
    procd_t *arr;
} proclist_t;

typedef struct {
    uint gpu, memory;
} util_t;

typedef struct {
    nvmlDevice_t device;
    ull type, data;
    uint gi, ci;
} event2_t;

typedef struct {
    nvmlDevice_t device;
    ull type, data;
} event1_t;

typedef union {
    double d;
    uint ui;
    unsigned long ul;
    ull v;
    long long sll;
    int si;
    unsigned short us;
} value_t;

typedef struct {
    uint fieldId, scopeId;
    int64_t ts, lat;
    uint vtype;
    uint ret;
    value_t v;
} field_t;

typedef struct {
    ull ts;
    value_t v;
} sample_t;

typedef struct {
    uint pid;
    ull ts;
    uint sm, mem, enc, dec;
} putil_t;

typedef struct {
    ull ts;
    uint pid, sm, mem, enc, dec, jpg, ofa;
} putilv1_t;

typedef struct {
    uint version, n;
    ull last;
    putilv1_t *arr;
} putillist_t;

typedef struct {
    uint sm, ce, dec, enc, jpeg, ofa, gislices, cislices;
    ull memMB;
} attrs_t;

typedef struct {
    uint max, high, partial, low, none;
} hist_t;

typedef struct {
    uint corrA, corrI, uncA, uncI, pending, failure;
} rows2_t;

typedef struct {
    uint version, chan, tpc;
} repair_t;

typedef struct {
    uint version, type;

    union {
        char str[41];
        unsigned char bytes[16];
    } v;
} uuidv_t;

typedef struct {
    uint version, sensor;
    int temp;
} tempv_t;

typedef struct {
    ull l1, l2, mem, reg;
} ecc4_t;

typedef struct {
    const char *ns;
    ull soft, hard;
} setlim_t;

typedef struct {
    const char *ns;
    ull soft, hard, used;
} getlim_t;

#define EXPORT __attribute__((visibility("default")))
#endif
