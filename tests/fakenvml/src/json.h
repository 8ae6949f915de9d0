/* Minimal read-only JSON tree (own code, no dependency). Whole document lives
 * in one arena freed at once; strings are NUL-terminated in place. */
#ifndef FAKE_JSON_H
#define FAKE_JSON_H
#include <stddef.h>

typedef enum { J_NULL, J_BOOL, J_NUM, J_STR, J_ARR, J_OBJ } jtype;

typedef struct jv {
    jtype t;
    int b;            /* J_BOOL */
    int is_int;       /* J_NUM: no fraction/exponent */
    long long i;      /* J_NUM */
    double d;         /* J_NUM */
    const char *s;    /* J_STR */
    const char *key;  /* member name when inside an object */
    struct jv *child; /* first element of J_ARR / J_OBJ */
    struct jv *next;  /* next sibling */
    int n;            /* number of children */
} jv;

typedef struct jdoc {
    jv *root;
    char *text;
    void *pool;
} jdoc;

/* returns NULL and fills err on a syntax error; takes ownership of nothing */
jdoc *j_parse(const char *text, size_t len, char *err, size_t errlen);
void j_free(jdoc *);
jv *j_get(const jv *obj, const char *key);
jv *j_at(const jv *arr, int i);
long long j_int(const jv *obj, const char *key, long long dflt);
double j_num(const jv *obj, const char *key, double dflt);
const char *j_str(const jv *obj, const char *key, const char *dflt);
int j_bool(const jv *obj, const char *key, int dflt);
#endif
