// Exact optimal brain surgeon on the rows of a layer: Frantar & Alistarh, "Optimal Brain Compression", NeurIPS 2022.
//
// A row w with inverse Hessian G of its inputs loses, one after the other, the weight p with the least w_p^2 / G_pp.
// The others move by -(w_p / G_pp) G[:, p]; G loses the rank-1 part G[:, p] G[p, :] / G_pp.
//
// 1. Downdating G at every step reads and writes all of it, columns^3 / 3 numbers a row: bound by the cache that holds
//    G, 2 MB for 512 columns. So the last PENDING vectors v = G[:, p] / sqrt(G_pp) are kept beside an older G. A step
//    takes one row of G and subtracts what is pending; then G takes all of them at once, as a product of matrices.
// 2. That product computes only blocks on and below the diagonal and mirrors them: columns^3 / 6 multiply-adds a row.
//    PENDING balances it against the steps, columns^2 x PENDING / 4: 64 was fastest at 512 and 1152 columns (32 took a
//    quarter longer, 128 a fifth), and 15 % slower than 32 at 128. In processor time of one core of an EPYC with 512 kB
//    of second-level cache, a layer of 512 x 512 takes 1.2 s with AVX2 and 2.3 s at the baseline; 1152 x 1152, reckoned
//    from 34 rows, 34 s: 9 multiply-adds a nanosecond. Samples of the clock put 43 % in the product, 25 % in the steps;
//    the rest moves numbers: closing gaps 14 %, copying G 8 %, mirroring 6 %. What bounds each is reasoned, not counted
//    (no counters there): the product by arithmetic, a step by reading pending vectors from the second-level cache.
// 3. What is gone leaves G at the same moment, so that it stays as small as what is left of the row.
// 4. In exact arithmetic the diagonal of G never falls below 1 / H_pp. It is held to that: a Hessian that is nearly
//    singular cannot give a negative diagonal, or a loss out of nothing.
// 5. Nothing is kept of the way but order, losses and keys, 20 bytes a weight. The weights at any number of removals
//    come from a second walk along the same order: how many a row loses is only known when all rows are.
#pragma once
#include <stdint.h>

typedef struct ObsTask {
  int32_t rows, columns, steps;
  const double* weights;  // [rows, columns]
  const double* inverse;  // [columns, columns], symmetric
  const double* least;    // [columns]: 1 / H_jj, above 0
  int32_t* order;         // [rows, steps]: columns as they go; found, or followed if there are levels

  // To find an order.
  const uint8_t* pruned;  // [rows, columns]: 1 goes before all others
  const int32_t* group;   // [columns]: which group a column is of, or null; at most `most` of each are removed
  int32_t groups, most;
  double* losses;  // [rows, steps]: what each step adds to the error (w - w')^T H (w - w') / 2
  double* keys;    // [rows, steps]: the losses made to rise, see obs_pool

  // To follow one.
  int32_t levels;
  const int32_t* counts;  // [rows, levels], rising in a row: how many are gone at each level
  double* results;        // [rows, levels, columns]: the weights then, 0 where they are gone
} ObsTask;

// What one thread works in; sizes from obs_doubles and obs_integers.
typedef struct ObsScratch {
  double* doubles;  // on a cache line
  int32_t* integers;
} ObsScratch;

// One row; 0, or 1 if no weight could be chosen because numbers were not finite. Plain types: called through a table,
// from code for any CPU into code that only some can run.
typedef int (*ObsWalk)(const ObsTask* task, int64_t row, ObsScratch scratch);

#ifdef __cplusplus
extern "C" {
#endif

int64_t obs_doubles(int64_t columns);
int64_t obs_integers(int64_t columns, int64_t groups);

// "base", "avx2" or "avx512": the widest that this machine runs.
const char* obs_best_isa(void);
// All rows. 0; -1 for an instruction set that does not run here, -2 for too little memory, or 1 + a row that failed.
int64_t obs_walk(const ObsTask* task, const char* isa, int threads);
// Losses [steps] to keys [steps] that never fall: the slopes of the lower convex hull of the summed losses, by pooling
// neighbours that fall. `lengths` is [steps] to work in.
void obs_pool(const double* losses, int32_t steps, double* keys, int32_t* lengths);

int obs_walk_base(const ObsTask* task, int64_t row, ObsScratch scratch);
int obs_walk_avx2(const ObsTask* task, int64_t row, ObsScratch scratch);
int obs_walk_avx512(const ObsTask* task, int64_t row, ObsScratch scratch);

#ifdef __cplusplus
}
#endif
