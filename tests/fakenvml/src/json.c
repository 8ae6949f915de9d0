#include "json.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chunk {
    struct chunk *next;
    size_t used;
    jv v[256];
} chunk;

typedef struct {
    const char *start;
    char *p, *end;
    chunk *pool;
    const char *msg;
    int depth;
} ctx;

static jv *newv(ctx *c) {
    if (!c->pool || c->pool->used == 256) {
        chunk *k = calloc(1, sizeof *k);
        if (!k) return NULL;
        k->next = c->pool;
        c->pool = k;
    }
    return &c->pool->v[c->pool->used++];
}

static void ws(ctx *c) {
    while (c->p < c->end && isspace((unsigned char)*c->p)) c->p++;
}

static int hex4(const char *p, unsigned *out) {
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        int h = p[i];
        if (h >= '0' && h <= '9')
            h -= '0';
        else if (h >= 'a' && h <= 'f')
            h -= 'a' - 10;
        else if (h >= 'A' && h <= 'F')
            h -= 'A' - 10;
        else
            return 0;
        v = v * 16 + (unsigned)h;
    }
    *out = v;
    return 1;
}

static char *utf8(char *w, unsigned cp) {
    if (cp < 0x80)
        *w++ = (char)cp;
    else if (cp < 0x800) {
        *w++ = (char)(0xC0 | cp >> 6);
        *w++ = (char)(0x80 | (cp & 63));
    } else if (cp < 0x10000) {
        *w++ = (char)(0xE0 | cp >> 12);
        *w++ = (char)(0x80 | (cp >> 6 & 63));
        *w++ = (char)(0x80 | (cp & 63));
    } else {
        *w++ = (char)(0xF0 | cp >> 18);
        *w++ = (char)(0x80 | (cp >> 12 & 63));
        *w++ = (char)(0x80 | (cp >> 6 & 63));
        *w++ = (char)(0x80 | (cp & 63));
    }
    return w;
}

static const char *str(ctx *c) { /* at the opening quote; unescapes in place */
    char *w = ++c->p, *s = w;
    while (c->p < c->end && *c->p != '"') {
        if (*c->p == '\\') {
            if (++c->p >= c->end) break;
            switch (*c->p) {
            case 'n':
                *w++ = '\n';
                break;
            case 't':
                *w++ = '\t';
                break;
            case 'r':
                *w++ = '\r';
                break;
            case 'b':
                *w++ = '\b';
                break;
            case 'f':
                *w++ = '\f';
                break;
            case 'u': {
                unsigned u, lo;
                if (c->end - c->p < 5 || !hex4(c->p + 1, &u)) {
                    c->msg = "bad \\u";
                    return NULL;
                }
                c->p += 4;
                if (u >= 0xD800 && u < 0xDC00 && c->end - c->p > 6 && c->p[1] == '\\' && c->p[2] == 'u' &&
                    hex4(c->p + 3, &lo)) {
                    u = 0x10000 + ((u - 0xD800) << 10) + (lo - 0xDC00);
                    c->p += 6;
                }
                w = utf8(w, u);
                break;
            }
            default:
                *w++ = *c->p;
            }
            c->p++;
        } else
            *w++ = *c->p++;
    }
    if (c->p >= c->end) {
        c->msg = "unterminated string";
        return NULL;
    }
    c->p++;
    *w = 0;
    return s;
}

static jv *val(ctx *c) {
    ws(c);
    if (c->p >= c->end) {
        c->msg = "unexpected end";
        return NULL;
    }
    if (++c->depth > 64) {
        c->msg = "too deep";
        return NULL;
    }
    jv *v = newv(c);
    if (!v) {
        c->msg = "out of memory";
        return NULL;
    }
    char ch = *c->p;
    if (ch == '{' || ch == '[') {
        char close = ch == '{' ? '}' : ']';
        v->t = ch == '{' ? J_OBJ : J_ARR;
        c->p++;
        ws(c);
        jv **tail = &v->child;
        if (c->p < c->end && *c->p == close) {
            c->p++;
            c->depth--;
            return v;
        }
        for (;;) {
            const char *k = NULL;
            ws(c);
            if (v->t == J_OBJ) {
                if (c->p >= c->end || *c->p != '"') {
                    c->msg = "expected a member name";
                    return NULL;
                }
                if (!(k = str(c))) return NULL;
                ws(c);
                if (c->p >= c->end || *c->p != ':') {
                    c->msg = "expected ':'";
                    return NULL;
                }
                c->p++;
            }
            jv *e = val(c);
            if (!e) return NULL;
            e->key = k;
            *tail = e;
            tail = &e->next;
            v->n++;
            ws(c);
            if (c->p < c->end && *c->p == ',') {
                c->p++;
                continue;
            }
            if (c->p < c->end && *c->p == close) {
                c->p++;
                break;
            }
            c->msg = "expected ',' or a closing bracket";
            return NULL;
        }
    } else if (ch == '"') {
        v->t = J_STR;
        if (!(v->s = str(c))) return NULL;
    } else if (!strncmp(c->p, "true", 4)) {
        v->t = J_BOOL;
        v->b = 1;
        c->p += 4;
    } else if (!strncmp(c->p, "false", 5)) {
        v->t = J_BOOL;
        c->p += 5;
    } else if (!strncmp(c->p, "null", 4)) {
        v->t = J_NULL;
        c->p += 4;
    } else {
        char *e1, *e2;
        v->t = J_NUM;
        v->d = strtod(c->p, &e1);
        v->i = strtoll(c->p, &e2, 10);
        if (e1 == c->p) {
            c->msg = "unexpected character";
            return NULL;
        }
        v->is_int = e1 == e2;
        if (!v->is_int) v->i = (long long)v->d;
        c->p = e1;
    }
    c->depth--;
    return v;
}

static void freepool(chunk *k) {
    while (k) {
        chunk *n = k->next;
        free(k);
        k = n;
    }
}

jdoc *j_parse(const char *text, size_t len, char *err, size_t errlen) {
    jdoc *d = calloc(1, sizeof *d);
    char *copy = malloc(len + 8);
    if (!d || !copy) {
        free(d);
        free(copy);
        snprintf(err, errlen, "out of memory");
        return NULL;
    }
    memcpy(copy, text, len);
    memset(copy + len, 0, 8);
    ctx c = {copy, copy, copy + len, NULL, NULL, 0};
    d->root = val(&c);
    if (d->root) {
        ws(&c);
        if (c.p < c.end) {
            c.msg = "trailing text";
            d->root = NULL;
        }
    }
    if (!d->root) {
        snprintf(err, errlen, "%s at byte %ld", c.msg ? c.msg : "error", (long)(c.p - c.start));
        freepool(c.pool);
        free(copy);
        free(d);
        return NULL;
    }
    d->text = copy;
    d->pool = c.pool;
    return d;
}

void j_free(jdoc *d) {
    if (d) {
        freepool(d->pool);
        free(d->text);
        free(d);
    }
}

jv *j_get(const jv *o, const char *key) {
    if (!o || o->t != J_OBJ) return NULL;
    for (jv *e = o->child; e; e = e->next)
        if (!strcmp(e->key, key)) return e;
    return NULL;
}

jv *j_at(const jv *a, int i) {
    if (!a) return NULL;
    jv *e = a->child;
    while (e && i-- > 0) e = e->next;
    return e;
}

long long j_int(const jv *o, const char *k, long long d) {
    jv *v = j_get(o, k);
    return v && v->t == J_NUM ? v->i : v && v->t == J_BOOL ? v->b : d;
}

double j_num(const jv *o, const char *k, double d) {
    jv *v = j_get(o, k);
    return v && v->t == J_NUM ? v->d : d;
}

const char *j_str(const jv *o, const char *k, const char *d) {
    jv *v = j_get(o, k);
    return v && v->t == J_STR ? v->s : d;
}

int j_bool(const jv *o, const char *k, int d) {
    jv *v = j_get(o, k);
    return v && v->t == J_BOOL ? v->b : v && v->t == J_NUM ? v->i != 0 : d;
}
