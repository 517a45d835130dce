// The interface between handlers and kernels: plain structs and one table of function pointers per instruction set.
// Included by per-ISA translation units, so it may include nothing but <stddef.h> and <stdint.h>.
#ifndef SPARSEJAX_SIMD_TABLE_H_
#define SPARSEJAX_SIMD_TABLE_H_

#include <stddef.h>
#include <stdint.h>

namespace sparsejax {

// A row program: for each output row r the entries begin[r] <= e < end[r]. Entry e multiplies the vectors
// at `x + offset[e] * offset_scale` by `data[e]`.
struct RowProgram {
  const int32_t* begin;
  const int32_t* end;
  const int32_t* offset;
  int64_t offset_scale;
};

// One tile: `vecs` vectors of `lanes` elements, consecutive in x, `y_vec_stride` elements apart in y.
// y[r][v] = sum over entries of row r of data * x[offset + v * lanes], for rows [row_begin, row_end); `y` is where
// row_begin goes. Where `init` is given, its rows of packed tiles are added.
template <typename T>
struct SpmmArgs {
  RowProgram program;
  int64_t row_begin, row_end;
  const T* data;
  const T* x;
  T* y;
  int64_t y_row_stride;
  int64_t y_vec_stride;
  int vecs;
  const T* init;  // vecs * lanes elements per row, or null; may be y itself
  bool stream;    // y need not stay in a cache: it is larger
};

// dw[id ? id[e] : e] += sum over v and lanes of y[r][v] * x[offset + v * lanes]. Of the last vector only the first
// `last_lanes` lanes of x count; the others may hold anything.
template <typename T>
struct SddmmArgs {
  RowProgram program;
  int64_t row_begin, row_end;
  const T* x;
  const T* y;
  int64_t y_row_stride;
  int64_t y_vec_stride;
  int vecs;
  int last_lanes;
  T* dw;
};

// Both gradients of a product: y as of SpmmArgs, and dw[e] += sum over v and lanes of tile[r][v] * x[offset + v * lanes],
// for every entry e of row r; `last_lanes` as of SddmmArgs.
template <typename T>
struct BackwardArgs : SpmmArgs<T> {
  const T* tile;
  int64_t tile_row_stride;
  int64_t tile_vec_stride;
  int last_lanes;
  T* dw;
};

// Window reductions over one channel plane (height, width, batch); see pool.inc.h.
struct PoolArgs {
  int64_t batch;  // contiguous elements per pixel
  int64_t in_h, in_w, out_h, out_w;
  int64_t window_h, window_w, stride_h, stride_w, pad_h, pad_w;
};

// Batch norm of one channel: z = (x - mean) * factor + bias, factor = scale / sqrt(var + epsilon); see norm.inc.h.
template <typename A>
struct NormArgs {
  A mean, factor, bias;
  bool relu;
};

// Its gradient: dx = g * factor + (x - mean) * slope + offset.
template <typename A>
struct NormGradArgs {
  NormArgs<A> norm;
  A slope, offset;
};

template <typename T>
struct FloatKernels {
  int lanes;            // elements per full vector
  int max_vecs;         // largest tile, in vectors of `lanes`
  int narrow_lanes[3];  // smaller vectors for small batches, descending; 1 is last
  void (*spmm)(const SpmmArgs<T>&);
  void (*spmm_narrow[3])(const SpmmArgs<T>&);
  void (*sddmm)(const SddmmArgs<T>&);
  void (*sddmm_narrow[3])(const SddmmArgs<T>&);
  void (*backward)(const BackwardArgs<T>&);
  // dst[i] += dst[s * stride + i] for s = 1, 2, ..., slots - 1 in this order, i < n <= stride.
  void (*add_slots)(T* dst, int64_t stride, int64_t slots, int64_t n);
};

// Storage conversions and reductions for one element type S whose sums are formed in A (float for bfloat16).
template <typename S, typename A>
struct StorageKernels {
  // Rows of n elements, converted; load_rows zeroes a row of dst from n to dst_stride.
  void (*load_rows)(const S* src, int64_t rows, int64_t src_stride, int64_t n, A* dst, int64_t dst_stride);
  void (*store_rows)(const A* src, int64_t rows, int64_t src_stride, int64_t n, S* dst, int64_t dst_stride);
  // dst[i][0..lanes) = the first `valid` elements of pixel[i] at src + pixel[i] * stride, then zeros; all zeros where
  // pixel[i] is negative.
  void (*pack_pixels)(const S* src, const int32_t* pixel, int64_t count, int64_t stride, int64_t valid, int64_t lanes,
                      int64_t ahead, A* dst);
  A (*sum)(const S* x, int64_t n);
  A (*dot)(const S* x, const S* y, int64_t n);
  void (*sum_pool)(const PoolArgs&, const S* x, S* y);       // one channel plane
  void (*sum_unpool)(const PoolArgs&, const S* y, S* x);
  void (*max_pool)(const PoolArgs&, const S* x, S* y, int32_t* arg);
  void (*max_take)(const PoolArgs&, const S* x, const int32_t* arg, S* y);
  void (*max_put)(const PoolArgs&, const S* y, const int32_t* arg, S* x);
  // Sums over a run of x - pivot and of its square, and the pivot: the run's mean, rounded.
  void (*moments)(const S* x, int64_t n, A* pivot, A* sum, A* square);
  void (*normalize)(const NormArgs<A>&, const S* x, const S* residual, S* y, int64_t n);  // residual may be null
  // Sums over a run of g and of g * (x - mean); g is the cotangent where the activation let z through. With a residual
  // y says where, and g is written too; else both are null, and z is computed from x again.
  void (*norm_grad_sums)(const NormArgs<A>&, const S* ct, const S* x, const S* y, S* g, int64_t n, A* sum, A* along);
  void (*norm_grad)(const NormGradArgs<A>&, const S* ct, const S* x, S* dx, int64_t n);
};

// What the machine can do at most; see probe.inc.h.
struct ProbeKernels {
  int flops_per_iteration;
  float (*fma)(int64_t iterations, float seed);
  float (*read)(const float* x, int64_t n);  // n a multiple of 128
};

struct bfloat16 {
  uint16_t bits;
};

struct KernelTable {
  const char* isa;
  FloatKernels<float> f32;
  FloatKernels<double> f64;
  StorageKernels<float, float> storage_f32;
  StorageKernels<double, double> storage_f64;
  StorageKernels<bfloat16, float> storage_bf16;
  bool (*all_below)(const int32_t* values, int64_t n, int32_t limit);  // 0 <= values < limit; limit > 0
  ProbeKernels probe;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_SIMD_TABLE_H_
