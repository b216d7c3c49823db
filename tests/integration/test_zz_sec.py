import time, resource, json, threading, itertools, random
import pytest
from tests.conftest import *
from app import auth
from app.api import docs
from tests.factories import picture
import base64

PNG="data:image/png;base64,"+base64.b64encode(picture()).decode()
NASTY=["", " ", "\x00", "a\x00b", "\ud800", "é"*50, "%00", "%s%s%s", "{0}", "' OR 1=1--", "../../etc/passwd", "<script>", "\r\nX: y", "9"*400, "-1", "1e400", "1e-400", "NaN", "Infinity", "0x10", "1_000", "٣", "²", "null", "true", None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**30, 1.5, 1e308, [], {}, [[]], [None], {"a":1}, "\ufffd", "\u202e", "\U0001F600"*10, "a"*300, "a"*10001, "http://", "http://[::1", "http://a b/", "https://example.com/"+"é"*1000, "data:image/png;base64,", "data:,", PNG, "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z","9999-12-31T23:59:59Z", "job_"+"f"*32, "img_"+"0"*32, "we_"+"f"*32, "99999999999999999-"+"f"*32]

@pytest.fixture
def fl(settings, database, tmp_path):
    from datetime import timedelta
    from app import web
    made=web.create_app(settings.model_copy(update={"sync_wait":timedelta(0),"longest_wait":timedelta(milliseconds=1)}))
    yield made
    web.close(made)

def props(op):
    m=op.request
    return [] if m is None else [(f.alias or n) for n,f in m.model_fields.items()]

def test_fuzz(fl, account):
    client=fl.test_client()
    bad={}
    n=0
    for op in docs.OPERATIONS:
        if op.name=="watchJob": continue
        path=op.path
        for p in op.parts: path=path.replace("{%s}"%p.name, p.example)
        base=dict(op.example or {})
        for name in props(op):
            for v in NASTY:
                body={**base, name:v, "key":account.key} if path.startswith("/api/") else {**base, name:v}
                if name=="key" and path.startswith("/api/"): body["key"]=v
                h=dict(account.headers)
                try:
                    if op.uploads:
                        import io
                        data={k:(x if isinstance(x,str) else json.dumps(x)) for k,x in body.items()}
                        data["image"]=(io.BytesIO(picture()),"a.png")
                        try: r=client.open(path, method=op.method, data=data, headers=h, content_type="multipart/form-data")
                        except UnicodeEncodeError: continue
                    else:
                        raw=json.dumps(body)
                        r=client.open(path, method=op.method, data=raw, content_type="application/json", headers=h)
                except Exception as e:
                    bad[(op.name,name,repr(v)[:40])]=repr(e)[:200]; continue
                n+=1
                if r.status_code>=500 and r.status_code not in (501,) and "Retry-After" not in r.headers:
                    bad[(op.name,name,repr(v)[:40])]=(r.status_code, r.text[:200])
        if op.query:
            for name in [(f.alias or k) for k,f in op.query.model_fields.items()]:
                for v in NASTY:
                    if not isinstance(v,str): continue
                    try: r=client.open(path, method=op.method, query_string={name:v}, headers=account.headers)
                    except UnicodeEncodeError: continue
                    except Exception as e: bad[(op.name,name,repr(v)[:40])]=repr(e)[:200]; continue
                    n+=1
                    if r.status_code>=500 and "Retry-After" not in r.headers: bad[(op.name,name,repr(v)[:40])]=(r.status_code, r.text[:200])
    print("FUZZED", n)
    for k,v in bad.items(): print("BAD",k,v)

def test_headers(fl, account):
    client=fl.test_client()
    from werkzeug.test import EnvironBuilder
    hosts=["", "[::1", "[::1]", "a b", "xn--a", "\xff", "a"*300, "a:b", "a:99999", "-", "..", "a..b", "evil.com/x?y#z", "evil.com\\@b", "http://x", "é", "a_b", "127.1", "[v1.x]","user@host", "%00", "a%0d%0aX", "xn--zckzah", "A.B"]
    paths=["/v1/jobs","/v1/models","/openapi.json","/docs","/","/v1/images","/outputs/"+"0"*32+"-0.png"]
    for h in hosts:
        for p in paths:
            for m,b in (("GET",None),("POST",{"prompt":"x"})):
                env=EnvironBuilder(path=p,method=m,json=b,headers=account.headers).get_environ()
                env["HTTP_HOST"]=h
                try:
                    r=client.open(environ_overrides=None, **{}) if False else client.run_wsgi_app(env, buffered=True)
                    it,status,hd=r
                    body=b"".join(it)
                    if status.startswith("5"): print("BADHOST",repr(h)[:30],p,m,status,body[:120])
                    if h in ("evil.com/x?y#z","xn--a","user@host","é","\xff") and p=="/v1/jobs" and m=="POST": print("HOST",repr(h),status,dict(hd).get("Location"),body[:0])
                except Exception as e:
                    print("EXC",repr(h)[:30],p,m,repr(e)[:200])
    hdrs={"If-Modified-Since":["Thu, 01 Jan 99999999999 00:00:00 GMT","Mon, 99 Xxx 2020","a"*60000,"Thu, 01 Jan 0000 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"],
     "If-None-Match":["*",'"'*60000,"a,"*30000,'W/"'],"Range":["bytes=0-","bytes=-","bytes=9-1","x=1-2","bytes="+"1-2,"*20000,"bytes=٣-"],"If-Range":["Thu, 01 Jan 99999999999 00:00:00 GMT",'"x"'],
     "Prefer":["wait="+"9"*9,"wait=\""+"1","wait"+" "*60000+"=1",","*60000,"wait=1;"*10000],"Last-Event-ID":["9"*18,"9"*60000,"٣"],"Idempotency-Key":["","a"*255,"a"*256,"é"," "],
     "Authorization":["Bearer","Bearer ","Basic !!!!","Bearer "+"a"*60000,"é"],"X-API-Key":["","é","a"*600,"\xff"],"key":["é"],"Content-Type":["application/json; charset=utf-16","multipart/form-data","multipart/form-data; boundary=","multipart/form-data; boundary="+"a"*60000,"application/json;"+";"*60000,"application/x+json"],
     "x-stainless-retry-count":["9"*60000,"-1","é"],"Accept":["*/*;q=9"*1000],"Cookie":["a=b;"*10000],"Expect":["100-continue"],"X-Forwarded-Host":["evil"]}
    for name,vals in hdrs.items():
        for v in vals:
            for p,m in (("/v1/jobs","GET"),("/v1/jobs","POST"),("/openapi.json","GET"),("/docs/assets/docs.js","GET"),("/v1/images/generations","POST"),("/v1/images/edits","POST"),("/v1/images/modify","POST"),("/v1/images/upload","POST"),("/api/v6/realtime/text2img","POST"),("/v1/images/imagine","POST"),("/v1/webhooks","POST"),("/v1/jobs/job_"+"0"*32+"/events","GET"),("/outputs/"+"0"*32+"-0.png","GET")):
                kw={}
                h={**account.headers,name:v}
                b=EnvironBuilder(path=p,method=m,data=b'{"prompt":"x","name":"n"}' if m=="POST" else None,content_type="application/json" if m=="POST" else None)
                env=b.get_environ()
                for k,x in h.items():
                    key="CONTENT_TYPE" if k=="Content-Type" else "HTTP_"+k.upper().replace("-","_")
                    env[key]=x.encode().decode("latin1")
                a=time.perf_counter()
                try:
                    it,status,hd=client.run_wsgi_app(env, buffered=True)
                    body=b"".join(it)
                    if status.startswith("5") and not status.startswith("501") and "Retry-After" not in dict(hd): print("BADHDR",name,repr(v)[:40],p,m,status,body[:150])
                except Exception as e:
                    print("EXC",name,repr(v)[:40],p,m,repr(e)[:200])
                if time.perf_counter()-a>0.5: print("SLOW",name,repr(v)[:40],p,time.perf_counter()-a)

def test_paths(fl, account):
    client=fl.test_client()
    segs=["%00","%ff","%ed%a0%80","..","%2e%2e","%2f","a"*5000,"%0d%0aX:y","job_%00","image_%00","image_"+"z"*24,"image_"+"0"*23+"%00","٣","<x>","image_"+"z"*3000,"1e5","9"*18,"9"*19,"-1","0"]
    for op in docs.OPERATIONS:
        if not op.parts: continue
        for s in segs:
            path=op.path
            for p in op.parts: path=path.replace("{%s}"%p.name, s)
            r=client.open(path, method=op.method, headers=account.headers, json={"key":account.key} if op.method=="POST" else None)
            if r.status_code>=500 and r.status_code!=501 or r.status_code<400: print("BADPATH",op.name,s[:20],r.status_code,r.text[:100])

def test_retry_after():
    from app.domain.webhook import parse_retry_after
    from datetime import datetime, UTC
    rnd=random.Random(1)
    toks=["Mon","Tue,","01","Jan","1","99999999999","00:00:00","12:99","GMT","+9999","-0000","2026","é",":",",","-","","EST","+24:00","0","\x00","(",")"]
    for i in range(200000):
        t=" ".join(rnd.choice(toks) for _ in range(rnd.randint(1,7)))
        try: parse_retry_after(t, now=datetime.now(UTC))
        except Exception as e: print("RA", repr(t), repr(e)); break
