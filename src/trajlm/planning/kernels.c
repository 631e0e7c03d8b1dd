/* Many tokens through all layers of a transformer, each seeing a list of tokens of its own.
 *
 * Compiled at run time by kernels.py with its sizes as constants: REAL, SINGLE, WIDTH, HEADS, HIDDEN.
 * A row's numbers are summed in an order that does not depend on its company or on the threads.
 *
 * Keys and values of every token lie in one pool, (layers, slots, 2, WIDTH); histories that share tokens
 * list the same slots. Weights of products are cut into panels of 64 columns, (panels, deep, 64).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#define omp_get_num_threads() 1
#endif

typedef REAL real;

#define DEPTH (WIDTH / HEADS)
#define PANEL 64
#define PADDED(columns) (((columns) + PANEL - 1) / PANEL * PANEL)
#define MIXED PADDED(3 * WIDTH)
#define OUTER PADDED(WIDTH)
#define INNER PADDED(HIDDEN)
#define ROWS 24 /* at most so many rows go through a layer's products together */
#define STEP 6  /* rows of a tile */
/* Numbers that a thread needs for them. */
#define AREA (ROWS * (WIDTH + (MIXED > OUTER + INNER ? MIXED : OUTER + INNER)))

#if defined(__AVX512F__)
#define BYTES 64
#define VECTORS 4
#elif defined(__AVX__)
#define BYTES 32
#define VECTORS 2
#else
#define BYTES 16
#define VECTORS 2
#endif
#define LANES (BYTES / (SINGLE ? 4 : 8))
#define TILE (LANES * VECTORS)
typedef real vector __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline))

enum { SET, ADD, GELU };

/* A layer's weights lie in this order in one array. */
typedef struct {
    real scale_attention[WIDTH], shift_attention[WIDTH];
    real mixed[WIDTH * MIXED], mixed_bias[MIXED];
    real output[WIDTH * OUTER], output_bias[OUTER];
    real scale_mlp[WIDTH], shift_mlp[WIDTH];
    real input[WIDTH * INNER], input_bias[INNER];
    real last[HIDDEN * OUTER], last_bias[OUTER];
} Layer;

/* x Phi(x), the exact form (Hendrycks and Gimpel 2016). */
INLINE real gelu(real x) {
#if SINGLE
    /* erf as a quotient of polynomials on [-4, 4] (Eigen's), to the last bits of float32. */
    float z = x * 0.70710678f;
    z = z > 4.0f ? 4.0f : z;
    z = z < -4.0f ? -4.0f : z;
    float s = z * z;
    float p = -2.72614225801306e-10f;
    p = p * s + 2.77068142495902e-08f;
    p = p * s - 2.10102402082508e-06f;
    p = p * s - 5.69250639462346e-05f;
    p = p * s - 7.34990630326855e-04f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    float q = -1.45660718464996e-05f;
    q = q * s - 2.13374055278905e-04f;
    q = q * s - 1.68282697438203e-03f;
    q = q * s - 7.37332916720468e-03f;
    q = q * s - 1.42647390514189e-02f;
    return 0.5f * x * (1.0f + z * p / q);
#else
    return 0.5 * x * (1.0 + erf(x * 0.70710678118654752440));
#endif
}

/* exp of a number that is not positive. */
INLINE real exponential(real x) {
#if SINGLE
    /* 2^n times Cephes' polynomial of the rest. */
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t bits; float number; } power;
    power.bits = ((int32_t)(x == x ? n : 0) + 127) << 23;
    return p * power.number;
#else
    return exp(x);
#endif
}

INLINE void tile(const int rows, const real *a, long a_stride, int deep, const real *weight,
                 const real *bias, real *out, long stride, const int mode) {
    __asm__("" : "+r"(deep)); /* no constant: else sums of few rows are unrolled, in another order */
    vector sum[STEP][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) sum[r][v] = *(const vector *)(bias + v * LANES);
    for (int k = 0; k < deep; k++) {
        vector line[VECTORS];
        for (int v = 0; v < VECTORS; v++) line[v] = *(const vector *)(weight + (long)k * PANEL + v * LANES);
        for (int r = 0; r < rows; r++) {
            real x = a[r * a_stride + k];
            for (int v = 0; v < VECTORS; v++) sum[r][v] += x * line[v];
        }
    }
    for (int r = 0; r < rows; r++) {
        real *to = out + r * stride;
        for (int v = 0; v < VECTORS; v++) {
            vector *there = (vector *)(to + v * LANES);
            if (mode == ADD) sum[r][v] += *there;
            *there = sum[r][v];
        }
        if (mode == GELU)
            for (int j = 0; j < TILE; j++) to[j] = gelu(to[j]);
    }
}

/* a (rows, deep) by panels of weight, with bias, into out (rows, panels x PANEL). */
INLINE void product(const real *a, long a_stride, int rows, int deep, const real *weight,
                    const real *bias, int columns, real *out, long stride, const int mode) {
    for (int at = 0; at < columns; at += TILE) {
        const real *w = weight + (long)(at / PANEL) * deep * PANEL + at % PANEL;
        int i = 0;
        for (; i + STEP <= rows; i += STEP)
            tile(STEP, a + i * a_stride, a_stride, deep, w, bias + at, out + i * stride + at, stride, mode);
        const real *rest = a + i * a_stride;
        real *to = out + i * stride + at;
        switch (rows - i) {
        case 5: tile(5, rest, a_stride, deep, w, bias + at, to, stride, mode); break;
        case 4: tile(4, rest, a_stride, deep, w, bias + at, to, stride, mode); break;
        case 3: tile(3, rest, a_stride, deep, w, bias + at, to, stride, mode); break;
        case 2: tile(2, rest, a_stride, deep, w, bias + at, to, stride, mode); break;
        case 1: tile(1, rest, a_stride, deep, w, bias + at, to, stride, mode); break;
        }
    }
}

/* Not inlined: over several rows it would add up in another order. */
static __attribute__((noinline)) void normalise(const real *x, const real *scale, const real *shift,
                                                real epsilon, real *out) {
    real mean = 0, spread = 0;
    for (int j = 0; j < WIDTH; j++) mean += x[j];
    mean /= WIDTH;
    for (int j = 0; j < WIDTH; j++) spread += (x[j] - mean) * (x[j] - mean);
    real factor = 1 / (real)sqrt(spread / WIDTH + epsilon);
    for (int j = 0; j < WIDTH; j++) out[j] = (x[j] - mean) * factor * scale[j] + shift[j];
}

/* The largest power of two of lanes that divides a head, at most a whole vector. */
#define DIVIDES(lanes) ((lanes) <= LANES && DEPTH % (lanes) == 0)
#define PART (DIVIDES(16) ? 16 : DIVIDES(8) ? 8 : DIVIDES(4) ? 4 : DIVIDES(2) ? 2 : 1)
#define PARTS (DEPTH / PART)
typedef real part __attribute__((vector_size(PART * sizeof(real)), aligned(sizeof(real)), may_alias));
#if PART == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif PART == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#elif PART == 4
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#elif PART == 2
#define EVEN 0, 2
#define ODD 1, 3
#else
#define EVEN 0
#define ODD 0
#endif
#ifdef __clang__
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#if SINGLE
typedef int32_t lanes __attribute__((vector_size(PART * sizeof(real))));
#else
typedef int64_t lanes __attribute__((vector_size(PART * sizeof(real))));
#endif
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (lanes){__VA_ARGS__})
#endif
#define AHEAD 8 /* tokens whose keys or values are asked for before they are needed */
#define ROUNDED(count) (((count) + 15) / 16 * 16)

/* PART vectors -> one that holds the sum of each, in their order. */
INLINE part sums(part *v) {
    for (int n = PART / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            v[i] = SHUFFLED(v[2 * i], v[2 * i + 1], EVEN) + SHUFFLED(v[2 * i], v[2 * i + 1], ODD);
    return v[0];
}

INLINE void ask_for(const real *numbers) {
    for (int j = 0; j < WIDTH; j += 64 / (int)sizeof(real)) __builtin_prefetch(numbers + j);
}

/* Softmax of the first `count` of `x`, which has room for 16 more, but for the division by the sum. */
INLINE real soften(real *x, int count) {
    real top[16], total[16], sum = 0;
    int room = ROUNDED(count);
    for (int t = count; t < room; t++) x[t] = x[0];
    for (int l = 0; l < 16; l++) top[l] = x[0], total[l] = 0;
    for (int t = 0; t < room; t += 16)
        for (int l = 0; l < 16; l++) top[l] = x[t + l] > top[l] ? x[t + l] : top[l];
    for (int l = 1; l < 16; l++) top[0] = top[l] > top[0] ? top[l] : top[0];
    for (int t = 0; t < room; t++) x[t] = exponential(x[t] - top[0]);
    for (int t = count; t < room; t++) x[t] = 0;
    for (int t = 0; t < room; t += 16)
        for (int l = 0; l < 16; l++) total[l] += x[t + l];
    for (int l = 0; l < 16; l++) sum += total[l];
    return sum;
}

/* One query over the tokens it sees; `scores` is scratch for HEADS x ROUNDED(count). */
INLINE void attend(const real *query, const real *pool, const int32_t *seen, int count, real *scores,
                   real *out) {
    int room = ROUNDED(count);
    for (int t = 0; t < count; t += PART) {
        part partial[HEADS][PART];
        for (int n = 0; n < PART; n++) {
            int at = t + n < count ? t + n : count - 1;
            const real *key = pool + (long)seen[at] * 2 * WIDTH;
            if (at + AHEAD < count) ask_for(pool + (long)seen[at + AHEAD] * 2 * WIDTH);
            for (int head = 0; head < HEADS; head++) {
                const part *q = (const part *)(query + head * DEPTH), *k = (const part *)(key + head * DEPTH);
                part sum = q[0] * k[0];
                for (int e = 1; e < PARTS; e++) sum += q[e] * k[e];
                partial[head][n] = sum;
            }
        }
        for (int head = 0; head < HEADS; head++)
            *(part *)(scores + (long)head * room + t) = sums(partial[head]);
    }
    real total[HEADS];
    for (int head = 0; head < HEADS; head++) total[head] = soften(scores + (long)head * room, count);
    part mixed[HEADS][PARTS];
    for (int head = 0; head < HEADS; head++)
        for (int e = 0; e < PARTS; e++) mixed[head][e] = (part){0};
    for (int t = 0; t < count; t++) {
        const real *value = pool + ((long)seen[t] * 2 + 1) * WIDTH;
        if (t + AHEAD < count) ask_for(pool + ((long)seen[t + AHEAD] * 2 + 1) * WIDTH);
        for (int head = 0; head < HEADS; head++)
            for (int e = 0; e < PARTS; e++)
                mixed[head][e] += scores[(long)head * room + t] * ((const part *)(value + head * DEPTH))[e];
    }
    for (int head = 0; head < HEADS; head++)
        for (int e = 0; e < PARTS; e++)
            ((part *)(out + head * DEPTH))[e] = mixed[head][e] / total[head];
}

/* Rows `first`.. of x: queries, and keys and values into their slots. */
static void look(const Layer *layer, real epsilon, const real *x, const int32_t *slots, int first, int rows,
                 real *queries, real *pool, real *area) {
    real(*normed)[WIDTH] = (void *)area, (*mixed)[MIXED] = (void *)(area + ROWS * WIDTH);
    for (int i = 0; i < rows; i++)
        normalise(x + (long)(first + i) * WIDTH, layer->scale_attention, layer->shift_attention, epsilon,
                  normed[i]);
    product(normed[0], WIDTH, rows, WIDTH, layer->mixed, layer->mixed_bias, MIXED, mixed[0], MIXED, SET);
    for (int i = 0; i < rows; i++) {
        memcpy(queries + (long)(first + i) * WIDTH, mixed[i], sizeof(real) * WIDTH);
        if (slots[first + i] >= 0)
            memcpy(pool + (long)slots[first + i] * 2 * WIDTH, mixed[i] + WIDTH, sizeof(real) * 2 * WIDTH);
    }
}

/* Both residual branches of rows `first`.. of x. */
static void finish(const Layer *layer, real epsilon, real *x, const int32_t *seen, const int32_t *counts,
                   int longest, int first, int rows, const real *queries, const real *pool, real *scores,
                   real *area) {
    real(*mixed)[WIDTH] = (void *)area, (*state)[OUTER] = (void *)(area + ROWS * WIDTH);
    real(*inner)[INNER] = (void *)(area + ROWS * (WIDTH + OUTER));
    if (OUTER > WIDTH) memset(state, 0, sizeof(real) * OUTER * rows);
    for (int i = 0; i < rows; i++) {
        long row = first + i;
        attend(queries + row * WIDTH, pool, seen + row * longest, counts[row], scores, mixed[i]);
        memcpy(state[i], x + row * WIDTH, sizeof(real) * WIDTH);
    }
    product(mixed[0], WIDTH, rows, WIDTH, layer->output, layer->output_bias, OUTER, state[0], OUTER, ADD);
    for (int i = 0; i < rows; i++)
        normalise(state[i], layer->scale_mlp, layer->shift_mlp, epsilon, mixed[i]);
    product(mixed[0], WIDTH, rows, WIDTH, layer->input, layer->input_bias, INNER, inner[0], INNER, GELU);
    product(inner[0], INNER, rows, HIDDEN, layer->last, layer->last_bias, OUTER, state[0], OUTER, ADD);
    for (int i = 0; i < rows; i++)
        memcpy(x + (long)(first + i) * WIDTH, state[i], sizeof(real) * WIDTH);
}

/* Numbers of scratch that `run` needs. */
int64_t scratch_of(int32_t rows, int32_t longest, int32_t threads) {
    return (int64_t)rows * WIDTH + threads * (AREA + (int64_t)HEADS * ROUNDED(longest));
}

/* x (rows, WIDTH) in place. Row r sees the slots seen[r, :counts[r]], its own too where it says so, and
 * its keys and values go to slots[r], nowhere where that is negative. Of rows before `wanted` no output is
 * wanted but keys and values. `apart`: no row sees another one of this call, so that threads need not wait
 * for each other. `scratch`: as many numbers as scratch_of says. */
void run(real *x, const int32_t *slots, const int32_t *seen, const int32_t *counts, int32_t rows,
         int32_t longest, int32_t wanted, int32_t apart, int32_t layers, const Layer *weights, double epsilon,
         real *pool, int64_t capacity, real *scratch, int32_t threads) {
    if (rows <= 0) return;
    int share = (rows + threads - 1) / threads, parts = (share + ROWS - 1) / ROWS;
    int size = (share + parts - 1) / parts, blocks = (rows + size - 1) / size;
    real *queries = scratch, *apiece = scratch + (long)rows * WIDTH;
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num(), others = omp_get_num_threads();
        int begin = thread * blocks / others, end = (thread + 1) * blocks / others;
        real *area = apiece + thread * (AREA + (long)HEADS * ROUNDED(longest)), *scores = area + AREA;
        for (int number = 0; number < layers; number++) {
            const Layer *layer = weights + number;
            real *there = pool + number * capacity * 2 * WIDTH;
            int from = number == layers - 1 ? wanted : 0;
            for (int block = begin; block < end; block++) {
                int first = block * size, last = first + size < rows ? first + size : rows;
                look(layer, epsilon, x, slots, first, last - first, queries, there, area);
            }
            if (!apart) {
#pragma omp barrier
            }
            for (int block = begin; block < end; block++) {
                int first = block * size, last = first + size < rows ? first + size : rows;
                first = first > from ? first : from;
                if (first < last)
                    finish(layer, epsilon, x, seen, counts, longest, first, last - first, queries, there, scores,
                           area);
            }
        }
    }
}
