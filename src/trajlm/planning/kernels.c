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

typedef REAL real;

#define DEPTH (WIDTH / HEADS)
#define PANEL 64
#define PADDED(columns) (((columns) + PANEL - 1) / PANEL * PANEL)
#define MIXED PADDED(3 * WIDTH)
#define OUTER PADDED(WIDTH)
#define INNER PADDED(HIDDEN)
#define ROWS 24 /* at most so many rows go through a layer's products together */
#define STEP 6  /* rows of a tile */

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
#define LANES (BYTES / (int)sizeof(real))
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
    /* 2^n times a polynomial of the rest (Cephes'). */
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
    power.bits = ((int32_t)n + 127) << 23;
    return p * power.number;
#else
    return exp(x);
#endif
}

INLINE void tile(const int rows, const real *a, long a_stride, int deep, const real *weight,
                 const real *bias, real *out, long stride, const int mode) {
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

INLINE void normalise(const real *x, const real *scale, const real *shift, real epsilon, real *out) {
    real mean = 0, spread = 0;
    for (int j = 0; j < WIDTH; j++) mean += x[j];
    mean /= WIDTH;
    for (int j = 0; j < WIDTH; j++) spread += (x[j] - mean) * (x[j] - mean);
    real factor = 1 / (real)sqrt(spread / WIDTH + epsilon);
    for (int j = 0; j < WIDTH; j++) out[j] = (x[j] - mean) * factor * scale[j] + shift[j];
}

/* One query over the tokens it sees; `scores` is scratch for HEADS x count. */
INLINE void attend(const real *query, const real *pool, const int32_t *seen, int count, real *scores,
                   real *out) {
    for (int t = 0; t < count; t++) {
        const real *key = pool + (long)seen[t] * 2 * WIDTH;
        for (int head = 0; head < HEADS; head++) {
            real sum = 0;
            for (int e = 0; e < DEPTH; e++) sum += query[head * DEPTH + e] * key[head * DEPTH + e];
            scores[(long)head * count + t] = sum;
        }
    }
    for (int head = 0; head < HEADS; head++) {
        real *own = scores + (long)head * count, top = own[0], total = 0;
        for (int t = 1; t < count; t++) top = own[t] > top ? own[t] : top;
        for (int t = 0; t < count; t++) own[t] = exponential(own[t] - top);
        for (int t = 0; t < count; t++) total += own[t];
        real mixed[DEPTH];
        for (int e = 0; e < DEPTH; e++) mixed[e] = 0;
        for (int t = 0; t < count; t++) {
            const real *value = pool + ((long)seen[t] * 2 + 1) * WIDTH + head * DEPTH;
            for (int e = 0; e < DEPTH; e++) mixed[e] += own[t] * value[e];
        }
        for (int e = 0; e < DEPTH; e++) out[head * DEPTH + e] = mixed[e] / total;
    }
}

/* Rows `first`.. of x: queries, and keys and values into their slots. */
static void look(const Layer *layer, real epsilon, const real *x, const int32_t *slots, int first, int rows,
                 real *queries, real *pool) {
    real normed[ROWS][WIDTH], mixed[ROWS][MIXED];
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
                   int longest, int first, int rows, const real *queries, const real *pool, real *scores) {
    real mixed[ROWS][WIDTH], state[ROWS][OUTER], inner[ROWS][INNER];
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

/* x (rows, WIDTH) in place. Row r sees the slots seen[r, :counts[r]], its own too where it says so, and
 * its keys and values go to slots[r], nowhere where that is negative. Of rows before `wanted` no output is
 * wanted but keys and values. `scratch`: rows x WIDTH + threads x HEADS x longest numbers. */
void run(real *x, const int32_t *slots, const int32_t *seen, const int32_t *counts, int32_t rows,
         int32_t longest, int32_t wanted, int32_t layers, const Layer *weights, double epsilon, real *pool,
         int64_t capacity, real *scratch, int32_t threads) {
    int share = (rows + threads - 1) / threads, parts = (share + ROWS - 1) / ROWS;
    int size = (share + parts - 1) / parts, blocks = (rows + size - 1) / size;
    real *queries = scratch, *scores = scratch + (long)rows * WIDTH;
#pragma omp parallel num_threads(threads)
    {
#ifdef _OPENMP
        extern int omp_get_thread_num(void);
        real *own = scores + (long)omp_get_thread_num() * HEADS * longest;
#else
        real *own = scores;
#endif
        for (int number = 0; number < layers; number++) {
            const Layer *layer = weights + number;
            real *there = pool + number * capacity * 2 * WIDTH;
#pragma omp for schedule(dynamic)
            for (int block = 0; block < blocks; block++) {
                int first = block * size, count = rows - first < size ? rows - first : size;
                look(layer, epsilon, x, slots, first, count, queries, there);
            }
            int from = number == layers - 1 ? wanted : 0;
#pragma omp for schedule(dynamic)
            for (int block = from / size; block < blocks; block++) {
                int first = block * size > from ? block * size : from;
                int end = (block + 1) * size < rows ? (block + 1) * size : rows;
                finish(layer, epsilon, x, seen, counts, longest, first, end - first, queries, there, own);
            }
        }
    }
}
