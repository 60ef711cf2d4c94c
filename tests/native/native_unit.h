/* A box: a port without a world, for unit tests of the protocol's parts, and for what a test must survive. */
#ifndef TESTS_NATIVE_UNIT_H
#define TESTS_NATIVE_UNIT_H

#include <setjmp.h>

#include "protocol/node/face.h"

/* cffi: begin */

struct box {
    struct port port;
    struct pool pool;
    unsigned char *access; /* one per granule: enum access */
    void *chunks;          /* list of what is not given back */
    uint64_t chunk_count, protects;
    char panic[512];
    bool guarded;
    void *escape;
};

struct box *box_new(uint64_t range_bytes, uint32_t granule_bytes);
void box_free(struct box *box);

/* What the functions of the protocol do; the text that they died with, or NULL.  A node that died is of no use any more. */
const char *box_log_check(struct box *box, const struct interval_log *log, uint64_t cut);
const char *box_vector_check(struct box *box, const struct vector *vector);
struct node *box_node(struct box *box, int rank, int size);
const char *box_node_free(struct box *box, struct node *node);
const char *box_receive(struct box *box, struct node *node, int from, const void *bytes, uint64_t count);
const char *box_barrier(struct box *box, struct node *node);

/* The bytes of the first message in the node's outbox, which is taken; 0: there is none, or no room. */
uint64_t box_take(struct node *node, void *bytes, uint64_t room);

/* The versions of diff.c that this processor does not choose (diff_*.c). */
uint64_t portable_diff_encode(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes,
                              uint64_t twin_bytes, unsigned char *body);
void portable_diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes);
void portable_diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body,
                               uint64_t bytes);
bool portable_diff_valid(const unsigned char *body, uint64_t bytes, uint64_t page_bytes);
uint64_t sse2_diff_encode(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes,
                          uint64_t twin_bytes, unsigned char *body);
void sse2_diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes);
void sse2_diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes);
bool sse2_diff_valid(const unsigned char *body, uint64_t bytes, uint64_t page_bytes);
uint64_t ssse3_diff_encode(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes,
                           uint64_t twin_bytes, unsigned char *body);
void ssse3_diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes);
void ssse3_diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes);
bool ssse3_diff_valid(const unsigned char *body, uint64_t bytes, uint64_t page_bytes);

/* cffi: end */

#endif
