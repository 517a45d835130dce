// Window reductions over one channel plane, memory (height, width, batch), the batch contiguous.
//
// Every function computes each output pixel from all the pixels it depends on (a gather), kChunk batch elements at a
// time in registers, so sums are not accumulated in memory and bfloat16 sums stay in float. Padding is not part of a
// window: sums and maxima leave it out.

constexpr int kChunk = 64;

struct Range {
  int64_t begin, end;
};

// Taps k of the window at output position o that fall inside [0, in).
SPARSEJAX_INLINE Range TapsInside(int64_t o, int64_t stride, int64_t pad, int64_t window, int64_t in) {
  const int64_t first = o * stride - pad;
  const int64_t begin = first < 0 ? -first : 0;
  const int64_t end = in - first < window ? in - first : window;
  return {begin, end > begin ? end : begin};
}

// Output positions whose window covers input position i.
SPARSEJAX_INLINE Range OutputsCovering(int64_t i, int64_t stride, int64_t pad, int64_t window, int64_t out) {
  const int64_t last = (i + pad) / stride;
  const int64_t from = i + pad - window;  // windows that start at or before this coordinate end before i
  const int64_t begin = from < 0 ? 0 : from / stride + 1;
  return {begin, last + 1 < out ? last + 1 : out};
}

// Calls body(oy, ox, b, n) for every output pixel and chunk of n batch elements from b.
template <typename Body>
SPARSEJAX_INLINE void ForEachChunk(int64_t h, int64_t w, int64_t batch, const Body& body) {
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x)
      for (int64_t b = 0; b < batch; b += kChunk)
        body(y, x, b, static_cast<int>(batch - b < kChunk ? batch - b : kChunk));
}

// Calls body(offset of the input pixel, tap number) for the taps of output (oy, ox) that are inside.
template <typename Body>
SPARSEJAX_INLINE void ForEachTap(const PoolArgs& p, int64_t oy, int64_t ox, const Body& body) {
  const Range ty = TapsInside(oy, p.stride_h, p.pad_h, p.window_h, p.in_h);
  const Range tx = TapsInside(ox, p.stride_w, p.pad_w, p.window_w, p.in_w);
  for (int64_t ky = ty.begin; ky < ty.end; ++ky)
    for (int64_t kx = tx.begin; kx < tx.end; ++kx) {
      const int64_t pixel = (oy * p.stride_h - p.pad_h + ky) * p.in_w + ox * p.stride_w - p.pad_w + kx;
      body(pixel * p.batch, static_cast<int32_t>(ky * p.window_w + kx));
    }
}

// Calls body(offset of the output pixel, tap number) for the windows that cover input (iy, ix).
template <typename Body>
SPARSEJAX_INLINE void ForEachWindow(const PoolArgs& p, int64_t iy, int64_t ix, const Body& body) {
  const Range ry = OutputsCovering(iy, p.stride_h, p.pad_h, p.window_h, p.out_h);
  const Range rx = OutputsCovering(ix, p.stride_w, p.pad_w, p.window_w, p.out_w);
  for (int64_t oy = ry.begin; oy < ry.end; ++oy)
    for (int64_t ox = rx.begin; ox < rx.end; ++ox) {
      const int64_t ky = iy + p.pad_h - oy * p.stride_h, kx = ix + p.pad_w - ox * p.stride_w;
      body((oy * p.out_w + ox) * p.batch, static_cast<int32_t>(ky * p.window_w + kx));
    }
}

// y[o] = sum over taps of x.
template <typename S, typename A>
void SumPool(const PoolArgs& p, const S* x, S* y) {
  ForEachChunk(p.out_h, p.out_w, p.batch, [&](int64_t oy, int64_t ox, int64_t b, int n) {
    A acc[kChunk] = {};
    ForEachTap(p, oy, ox, [&](int64_t at, int32_t) {
      for (int i = 0; i < n; ++i) acc[i] += Widen(x[at + b + i]);
    });
    S* out = y + (oy * p.out_w + ox) * p.batch + b;
    for (int i = 0; i < n; ++i) Narrow(acc[i], &out[i]);
  });
}

// The transpose of SumPool: x[i] = sum over the windows that cover i of y.
template <typename S, typename A>
void SumUnpool(const PoolArgs& p, const S* y, S* x) {
  ForEachChunk(p.in_h, p.in_w, p.batch, [&](int64_t iy, int64_t ix, int64_t b, int n) {
    A acc[kChunk] = {};
    ForEachWindow(p, iy, ix, [&](int64_t at, int32_t) {
      for (int i = 0; i < n; ++i) acc[i] += Widen(y[at + b + i]);
    });
    S* out = x + (iy * p.in_w + ix) * p.batch + b;
    for (int i = 0; i < n; ++i) Narrow(acc[i], &out[i]);
  });
}

// y[o] = maximum over taps of x and arg[o] = its tap number, the first of equals; NaN wins and stays. A window that
// lies in the padding entirely gives -inf and tap -1.
template <typename S, typename A>
void MaxPool(const PoolArgs& p, const S* x, S* y, int32_t* arg) {
  ForEachChunk(p.out_h, p.out_w, p.batch, [&](int64_t oy, int64_t ox, int64_t b, int n) {
    A best[kChunk];
    int32_t tap[kChunk];
    for (int i = 0; i < n; ++i) best[i] = -A(__builtin_inff()), tap[i] = -1;
    ForEachTap(p, oy, ox, [&](int64_t at, int32_t k) {
      for (int i = 0; i < n; ++i) {
        const A v = Widen(x[at + b + i]);
        const bool take = (best[i] == best[i]) & (!(v <= best[i]) | (tap[i] < 0));
        best[i] = take ? v : best[i];
        tap[i] = take ? k : tap[i];
      }
    });
    const int64_t o = (oy * p.out_w + ox) * p.batch + b;
    for (int i = 0; i < n; ++i) Narrow(best[i], &y[o + i]), arg[o + i] = tap[i];
  });
}

// y[o] = x at the tap arg[o], or 0 where no tap has this number: no value of arg reads out of bounds.
template <typename S, typename A>
void MaxTake(const PoolArgs& p, const S* x, const int32_t* arg, S* y) {
  ForEachChunk(p.out_h, p.out_w, p.batch, [&](int64_t oy, int64_t ox, int64_t b, int n) {
    const int64_t o = (oy * p.out_w + ox) * p.batch + b;
    A acc[kChunk] = {};
    ForEachTap(p, oy, ox, [&](int64_t at, int32_t k) {
      for (int i = 0; i < n; ++i) acc[i] = arg[o + i] == k ? Widen(x[at + b + i]) : acc[i];
    });
    for (int i = 0; i < n; ++i) Narrow(acc[i], &y[o + i]);
  });
}

// The transpose of MaxTake: x[i] = sum of y over the windows whose arg is i.
template <typename S, typename A>
void MaxPut(const PoolArgs& p, const S* y, const int32_t* arg, S* x) {
  ForEachChunk(p.in_h, p.in_w, p.batch, [&](int64_t iy, int64_t ix, int64_t b, int n) {
    A acc[kChunk] = {};
    ForEachWindow(p, iy, ix, [&](int64_t at, int32_t k) {
      for (int i = 0; i < n; ++i) acc[i] += arg[at + b + i] == k ? Widen(y[at + b + i]) : A(0);
    });
    S* out = x + (iy * p.in_w + ix) * p.batch + b;
    for (int i = 0; i < n; ++i) Narrow(acc[i], &out[i]);
  });
}
