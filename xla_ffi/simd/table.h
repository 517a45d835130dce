// The interface between handlers and kernels: plain structs, and one table of function pointers per instruction set.
// Translation units of every instruction set include this file, so it includes nothing but <stddef.h> and <stdint.h>.
#ifndef SPARSEJAX_SIMD_TABLE_H_
#define SPARSEJAX_SIMD_TABLE_H_

#include <stddef.h>
#include <stdint.h>

namespace sparsejax {

struct bfloat16 {
  uint16_t bits;
};

// The type of the sums of elements stored as S: float for bfloat16.
template <typename S>
struct SumOf {
  using type = S;
};
template <>
struct SumOf<bfloat16> {
  using type = float;
};
template <typename S>
using Sum = typename SumOf<S>::type;

// A row program: for each output row r the entries begin[r] <= e < end[r]. Entry e multiplies the vectors at
// `x + offset[e] * offset_scale` by `data[e]`.
struct RowProgram {
  const int32_t* begin = nullptr;
  const int32_t* end = nullptr;
  const int32_t* offset = nullptr;
  int64_t offset_scale = 1;
};

// Arguments of spmm for one tile of `vecs` vectors. For the rows r from row_begin to row_end,
//   y[r][v] = init[r][v] + sum over entries e of row r of data[e] * x[offset[e] + v * lanes].
// Vectors are consecutive in x. In y, rows and vectors have any strides; `y` points to row row_begin. Sums that a later
// call continues go to `sums` instead of y, and are its `init`: vecs * lanes numbers per row, in the kernel's order.
template <typename S>
struct SpmmArgs {
  RowProgram program{};
  int64_t row_begin = 0, row_end = 0;
  const Sum<S>* data = nullptr;
  const S* x = nullptr;
  S* y = nullptr;
  int64_t y_row_stride = 0;  // elements
  int64_t y_vec_stride = 0;  // elements
  int vecs = 0;
  const Sum<S>* init = nullptr;  // null for zeros; may be equal to `sums`
  Sum<S>* sums = nullptr;        // null: y is written
  bool stream = false;           // write y around the caches, because it is larger than they are
};

// Arguments of sddmm for one tile of `vecs` vectors. For the entries e of the rows r from row_begin to row_end,
//   dw[e] += sum over v and lanes of y[r][v] * x[offset[e] + v * lanes].
// Only the first `last_lanes` lanes of the last vector are added; the others are zero in y and may have any value in x.
template <typename S>
struct SddmmArgs {
  RowProgram program{};
  int64_t row_begin = 0, row_end = 0;
  const S* x = nullptr;
  const S* y = nullptr;
  int64_t y_row_stride = 0;  // elements
  int64_t y_vec_stride = 0;  // elements
  int vecs = 0;
  int last_lanes = 0;
  Sum<S>* dw = nullptr;
};

// Arguments of both gradients of a product for one tile: y as for SpmmArgs, and for the entries e of every row r
//   dw[e] += sum over v and lanes of tile[r][v] * x[offset[e] + v * lanes],
// with `last_lanes` as in SddmmArgs.
template <typename S>
struct BackwardArgs : SpmmArgs<S> {
  const S* tile = nullptr;
  int64_t tile_row_stride = 0;  // elements
  int64_t tile_vec_stride = 0;  // elements
  int last_lanes = 0;
  Sum<S>* dw = nullptr;
};

// Arguments of the product of a small batch, whose rows [row_begin, row_end) are
//   y[r - row_begin][b] = sum over entries e of row r of data[e] * x[indices[e]][b],
// where b < the kernel's number of examples, to which x and y are packed.
template <typename S>
struct SmallBatchArgs {
  const int32_t* row_ptr = nullptr;
  const int32_t* indices = nullptr;
  int64_t features = 0;  // of x; at least 1
  int64_t row_begin = 0, row_end = 0;
  const S* data = nullptr;
  const Sum<S>* x = nullptr;
  S* y = nullptr;
};

// Window reductions over one channel plane (height, width, batch); see pool.inc.h.
struct PoolArgs {
  int64_t batch;  // contiguous elements per pixel
  int64_t in_h, in_w, out_h, out_w;
  int64_t window_h, window_w, stride_h, stride_w, pad_h, pad_w;
};

// Batch norm: z = (x - mean) * factor + bias, factor = scale / sqrt(var + epsilon); see norm.inc.h. V is a number for
// one channel, and a pointer to a number per channel for rows, in which all channels are contiguous.
template <typename V>
struct NormArgs {
  V mean, factor, bias;
  bool relu;
};

// Gradient of the same: dx = g * factor + (x - mean) * slope + offset.
template <typename V>
struct NormGradArgs {
  NormArgs<V> norm;
  V slope, offset;
};

// A product of small matrices: c[r][x] = [c[r][x] +] sum over k < steps of a[r][k] * b[k][x], for r < rows and x <
// columns rounded up to full vectors. a_row or a_step is 1.
template <typename T>
struct TileProduct {
  const T* a = nullptr;
  int64_t a_row = 1, a_step = 1;  // elements between rows and between steps
  const T* b = nullptr;
  int64_t b_step = 0;
  T* c = nullptr;
  int64_t c_row = 0;
  int64_t rows = 0, steps = 0, columns = 0;
  bool accumulate = false;
};

// Scores of some keys (rows) for some queries (lanes, rounded up to full vectors); see attention.inc.h. `scores` are
// products of queries and keys. They become score = products * factor + extra, or kMasked where `extra` is kMasked and
// where lane l may not see a key, which is where key > last_key + l.
template <typename T>
struct ScoreBlock {
  // As in jax.nn.dot_product_attention, so that a query that sees nothing has equal weights.
  static constexpr T kMasked = T(-0.7) * (sizeof(T) == 4 ? T(3.4028234663852886e+38) : T(1.7976931348623157e+308));
  T* scores = nullptr;
  T* slopes = nullptr;       // softmax_grad: products of cotangents and values, then the gradients of the products
  const T* extra = nullptr;  // null for zeros
  int64_t stride = 0;        // elements between keys in scores, slopes and extra
  int64_t keys = 0, lanes = 0;
  int64_t last_key = INT64_MAX;
  T factor = 1, scale = 1;
  // One per lane: the highest score, the sum (softmax_grad: its logarithm), the factor of what was summed before, and
  // the mean slope.
  T* peak = nullptr;
  T* total = nullptr;
  T* decay = nullptr;
  const T* mean = nullptr;
};

template <typename T>
struct AttentionKernels {
  int64_t lanes;  // queries whose products with a key are computed together
  void (*product)(const TileProduct<T>&);
  void (*softmax)(const ScoreBlock<T>&);
  void (*softmax_grad)(const ScoreBlock<T>&);
  void (*scale_lanes)(T* x, int64_t rows, int64_t stride, int64_t lanes, const T* factor);
};

// Kernels on sums of type A.
template <typename A>
struct SumKernels {
  // dst[i] += dst[s * stride + i] for s = 1, 2, ..., slots - 1 in this order, i < n <= stride.
  void (*add_slots)(A* dst, int64_t stride, int64_t slots, int64_t n);
};

// Kernels on elements of type S.
template <typename S>
struct ProductKernels {
  int lanes;            // elements per full vector
  int max_vecs;         // vectors of `lanes` elements in the largest tile
  int narrow_lanes[3];  // elements of the smaller vectors for small batches, descending; the last is 1
  void (*spmm)(const SpmmArgs<S>&);
  void (*spmm_narrow[3])(const SpmmArgs<S>&);
  void (*sddmm)(const SddmmArgs<S>&);
  void (*sddmm_narrow[3])(const SddmmArgs<S>&);
  void (*backward)(const BackwardArgs<S>&);
  // The same for groups of 2 and of 4 rows with the same offsets; see shared_rows.inc.h.
  int spmm_shared_max_vecs[2];
  void (*spmm_shared[2])(const SpmmArgs<S>&);
  int backward_shared_max_vecs[2];
  void (*backward_shared[2])(const BackwardArgs<S>&);
  // The products of 1, 2, 4, 8 and 16 examples; null where these are more than a vector. They return whether all indices
  // they met were in range, and stop at the first that is not. See small_batch.inc.h.
  bool (*small_batch[5])(const SmallBatchArgs<S>&);
  bool (*small_batch_loads[2])(const SmallBatchArgs<S>&);  // the first two, for processors with slow gathers
};

// Copies, conversions and reductions of elements stored as S, whose sums are formed in A.
template <typename S, typename A>
struct StorageKernels {
  // Copy rows of n elements. pack_rows sets the elements from n to dst_stride of each row to zero.
  void (*pack_rows)(const S* src, int64_t rows, int64_t src_stride, int64_t n, S* dst, int64_t dst_stride);
  void (*copy_rows)(const S* src, int64_t rows, int64_t src_stride, int64_t n, S* dst, int64_t dst_stride);
  // dst[c][r] = src[r][c] for r < rows, c < columns. With `stream`, whole cache lines of dst are written around the
  // caches.
  void (*transpose)(const S* src, int64_t rows, int64_t columns, int64_t src_stride, S* dst, int64_t dst_stride,
                    bool stream);
  // The same with a conversion, from S and to S.
  void (*load_rows)(const S* src, int64_t rows, int64_t src_stride, int64_t n, A* dst, int64_t dst_stride);
  void (*store_rows)(const A* src, int64_t rows, int64_t src_stride, int64_t n, S* dst, int64_t dst_stride);
  void (*load_transposed)(const S* src, int64_t rows, int64_t columns, int64_t src_stride, A* dst, int64_t dst_stride);
  void (*store_transposed)(const A* src, int64_t rows, int64_t columns, int64_t src_stride, S* dst, int64_t dst_stride);
  // dst[i][0..lanes) = the `valid` elements at src + pixel[i] * stride, then zeros; all zeros where pixel[i] is
  // negative. What is `ahead` elements further is prefetched.
  void (*pack_pixels)(const S* src, const int32_t* pixel, int64_t count, int64_t stride, int64_t valid, int64_t lanes,
                      int64_t ahead, S* dst);
  A (*sum)(const S* x, int64_t n);
  A (*dot)(const S* x, const S* y, int64_t n);
  // sums[c] += sum over rows of x[r][c], or of x[r][c] * y[r][c] where y is not null, c < n.
  void (*add_rows)(const S* x, const S* y, int64_t rows, int64_t stride, int64_t n, A* sums);
  // Window reductions of one channel plane.
  void (*sum_pool)(const PoolArgs&, const S* x, S* y);
  void (*sum_unpool)(const PoolArgs&, const S* y, S* x);
  void (*max_pool)(const PoolArgs&, const S* x, S* y, int32_t* arg);
  void (*max_take)(const PoolArgs&, const S* x, const int32_t* arg, S* y);
  void (*max_put)(const PoolArgs&, const S* y, const int32_t* arg, S* x);
  // A number near the mean of a run (`pivot`), and the sums of x - pivot and of its square.
  void (*moments)(const S* x, A* pivot, A* sum, A* square, int64_t n);
  void (*normalize)(const NormArgs<A>&, const S* x, const S* residual, S* y, int64_t n);  // residual may be null
  // The sums of g and of g * (x - mean) over a run, where g is the cotangent times the activation's derivative. With a
  // residual, the derivative is taken from y, and g is written. Without one, y and g are null, and the derivative is
  // computed from x.
  void (*norm_grad_sums)(const NormArgs<A>&, const S* ct, const S* x, const S* y, S* g, A* sum, A* along, int64_t n);
  void (*norm_grad)(const NormGradArgs<A>&, const S* ct, const S* x, S* dx, int64_t n);
  // The same for rows of n channels, with a pivot and sums over the rows for each channel.
  void (*moments_rows)(const S* x, A* pivot, A* sum, A* square, int64_t rows, int64_t n);
  void (*normalize_rows)(const NormArgs<const A*>&, const S* x, const S* residual, S* y, int64_t rows, int64_t n);
  void (*norm_grad_sums_rows)(const NormArgs<const A*>&, const S* ct, const S* x, const S* y, S* g, A* sum, A* along,
                              int64_t rows, int64_t n);
  void (*norm_grad_rows)(const NormGradArgs<const A*>&, const S* ct, const S* x, S* dx, int64_t rows, int64_t n);
};

// Numbers per block of a digest.
constexpr int kDigestBlock = 1024;

// Kernels that measure the highest rates of the processor; see probe.inc.h.
struct ProbeKernels {
  int flops_per_iteration;
  float (*fma)(int64_t iterations, float seed);
  float (*read)(const float* x, int64_t n);  // n a multiple of 128
};

struct KernelTable {
  const char* isa;
  ProductKernels<float> f32;
  ProductKernels<double> f64;
  ProductKernels<bfloat16> bf16;
  SumKernels<float> sums_f32;
  SumKernels<double> sums_f64;
  AttentionKernels<float> attention_f32;
  AttentionKernels<double> attention_f64;
  AttentionKernels<float> attention_bf16;  // on float, of which operands are rounded to bfloat16 if that is faster
  StorageKernels<float, float> storage_f32;
  StorageKernels<double, double> storage_f64;
  StorageKernels<bfloat16, float> storage_bf16;
  bool (*all_below)(const int32_t* values, int64_t n, int32_t limit);  // 0 <= values < limit; limit > 0
  // Two hashes of a block under 2 * kDigestBlock keys; see digest.inc.h.
  void (*digest_block)(const int32_t* block, const uint32_t* keys, uint64_t* sums);
  ProbeKernels probe;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_SIMD_TABLE_H_
